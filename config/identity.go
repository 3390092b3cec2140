package config

// derive fills in what depends on the source of identity.
func (i *Identity) derive() {
	if i.ServiceID == "" {
		if i.ServiceID = "spiffe://{trust_domain}/{service}"; i.Consul != nil {
			i.ServiceID = i.Consul.ServiceID("{trust_domain}", "{datacenter}", "{service}")
		}
	}
	if i.MinTLS == "" {
		if i.MinTLS = "1.3"; i.Consul != nil {
			i.MinTLS = "1.2"
		}
	}
}

// sources refuses more than one source of identity.
func (v *validator) sources() {
	i := &v.Identity
	first := ""
	for _, s := range [...]struct {
		name string
		set  bool
	}{{"workload_api", i.WorkloadAPI != ""}, {"files", i.Files != nil}, {"consul", i.Consul != nil}} {
		switch {
		case s.set && first != "":
			v.say("identity."+s.name, "is a second source of identity beside %s; keep one", first)
		case s.set:
			first = s.name
		}
	}
}
