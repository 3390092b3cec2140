package config

// authorization refuses rules that could never match.
func (v *validator) authorization() {
	a := &v.Authorization
	if len(a.Rules) > 0 && !v.Service.Called() {
		v.say("authorization.rules", "guard nothing: service.port is 0, so nothing listens")
	}
	tcp := v.Detection.Resolve(v.Inbound.Protocol, v.Service.Port) == ProtocolTCP
	for i, r := range a.Rules {
		path := joinIndex("authorization.rules", i)
		if tcp && len(r.Methods) > 0 {
			v.say(path+".methods", "cannot be seen: the inbound listener speaks tcp; remove them")
		}
		if tcp && len(r.Paths) > 0 {
			v.say(path+".paths", "cannot be seen: the inbound listener speaks tcp; remove them")
		}
		if tcp && r.PathPrefix != "" {
			v.say(path+".path_prefix", "cannot be seen: the inbound listener speaks tcp; remove it")
		}
		if tcp && r.PathRegex != "" {
			v.say(path+".path_regex", "cannot be seen: the inbound listener speaks tcp; remove it")
		}
		if tcp && r.JWT != nil {
			v.say(path+".jwt", "cannot be seen: the inbound listener speaks tcp; remove it")
		}
		if tcp && len(r.Headers) > 0 {
			v.say(path+".headers", "cannot be seen: the inbound listener speaks tcp; remove them")
		}
		for j, from := range r.From {
			switch anonymous := from == "anonymous"; {
			case anonymous && v.Inbound.MTLS == MTLSStrict:
				v.say(joinIndex(path+".from", j), "never matches: inbound.mtls is strict, so every caller has an identity")
			case !anonymous && v.Inbound.MTLS == MTLSOff:
				v.say(joinIndex(path+".from", j), "never matches: inbound.mtls is off, so no caller has an identity")
			}
		}
	}
}
