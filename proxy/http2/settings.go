package http2

import (
	"encoding/binary"
)

// onSettings obeys the peer's settings, RFC 9113 section 6.5.
func (c *conn) onSettings(f *frame) error {
	if f.id != 0 {
		return c.connError(ProtocolError, "SETTINGS on a stream")
	}
	if f.has(flagAck) {
		if len(f.payload) != 0 {
			return c.connError(FrameSizeError, "an acknowledgement with settings")
		}
		c.mu.Lock()
		c.ackedOwn = true
		c.mu.Unlock()
		return nil
	}
	if len(f.payload)%6 != 0 {
		return c.connError(FrameSizeError, "SETTINGS of the wrong length")
	}
	if err := c.spend(FloodSettings); err != nil {
		return err
	}
	for p := f.payload; len(p) > 0; p = p[6:] {
		if err := c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	return c.reply(func() { c.pend = appendFrameHead(c.pend, 0, frameSettings, flagAck, 0) })
}

func (c *conn) setting(id uint16, v uint32) error {
	switch id {
	case settingTableSize:
		c.mu.Lock()
		c.enc.setPeerLimit(v)
		c.mu.Unlock()
	case settingEnablePush:
		if v > 1 || v == 1 && c.client {
			return c.connError(ProtocolError, "SETTINGS_ENABLE_PUSH is neither 0 nor 1")
		}
	case settingMaxStreams:
		c.mu.Lock()
		c.peerLimit = v
		c.mu.Unlock()
	case settingInitialWindow:
		if v > maxWindow {
			return c.connError(FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE exceeds 2^31-1")
		}
		c.mu.Lock()
		d := int64(v) - c.peerWindow
		c.peerWindow = int64(v)
		over := false
		for _, s := range c.streams {
			s.sendLeft += d
			over = over || s.sendLeft > maxWindow
			c.resume(s)
		}
		c.mu.Unlock()
		if over {
			return c.connError(FlowControlError, "a stream's window exceeds 2^31-1")
		}
	case settingMaxFrame:
		if v < maxFrame || v > 1<<24-1 {
			return c.connError(ProtocolError, "SETTINGS_MAX_FRAME_SIZE is out of range")
		}
	case settingConnectProtocol:
		if v > 1 {
			return c.connError(ProtocolError, "SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1")
		}
		c.mu.Lock()
		off := c.peerSpeaks && v == 0
		c.peerSpeaks = v == 1
		c.mu.Unlock()
		if off {
			return c.connError(ProtocolError, "SETTINGS_ENABLE_CONNECT_PROTOCOL is taken back")
		}
	}
	return nil
}
