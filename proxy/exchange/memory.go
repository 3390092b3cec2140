package exchange

import "github.com/outrigger-mesh/outrigger/proxy/memory"

// keepsBodies reports whether memory allows to keep a body for another attempt.
// One that is not kept is passed on as it comes.
func (x *exchange) keepsBodies() bool {
	m := x.s.srv.Memory
	if m.At(memory.Narrow) {
		m.Gave(memory.Bodies)
		return false
	}
	return true
}

// Relieve makes room where memory is so short that callers must notice: an idle
// connection is closed, and exchanges are ended that have not moved a byte since
// the call before.
func (s *Session) Relieve() {
	m := s.srv.Memory
	if h := s.streams.Load(); h != nil {
		if h.CloseIdle() {
			m.Gave(memory.IdleConns)
			return
		}
		m.GaveMany(memory.Stalled, h.EndStalled())
		return
	}
	if !s.busy.Load() {
		m.Gave(memory.IdleConns)
		s.conn.Expire()
		return
	}
	d := s.conn.Deadline()
	if d > 0 && d == s.stood && !s.tunnels.any() {
		m.Gave(memory.Stalled)
		s.conn.Expire()
	}
	s.stood = d
}
