package config

import "strings"

// Expose is a path of the application that others may ask without mTLS, such as
// one that checks its health: nothing but this path, by an address of its own.
// No rule of authorization is asked.
type Expose struct {
	// Where others ask, "IP:PORT". Required.
	Listen string `yaml:"listen"`
	// The path, as a whole, such as "/healthz". Anything else is answered with 404. Required.
	Path string `yaml:"path"`
	// The port of the application at service.address, or where that is a Unix socket at 127.0.0.1, that is asked. Default: service.port, or the socket.
	Port int `yaml:"port"`
	// What the application speaks there: http (HTTP/1.1) or http2 (by prior knowledge).
	Protocol Protocol `yaml:"protocol" enum:"http,http2"`
}

// SetDefaults implements Defaulter.
func (e *Expose) SetDefaults() { e.Protocol = ProtocolHTTP }

// expose checks inbound.expose but for its addresses.
func (v *validator) expose() {
	for i := range v.Inbound.Expose {
		e, at := &v.Inbound.Expose[i], joinIndex("inbound.expose", i)
		if e.Listen == "" {
			v.say(at+".listen", "is required; write where the path is asked for, such as 0.0.0.0:21500")
		}
		if !strings.HasPrefix(e.Path, "/") || strings.ContainsAny(e.Path, "?# ") {
			v.say(at+".path", "is %q; write a path such as /healthz", e.Path)
		}
		switch {
		case e.Port == 0 && !v.Service.Called():
			v.say(at+".port", "is required where there is no service.port; write the port of the application")
		case e.Port < 0 || e.Port > 65535:
			v.say(at+".port", "is %d; write a port from 1 to 65535", e.Port)
		}
		if e.Protocol != ProtocolHTTP && e.Protocol != ProtocolHTTP2 {
			v.say(at+".protocol", "is %q; write http or http2", e.Protocol)
		}
	}
}
