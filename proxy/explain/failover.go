package explain

import (
	"github.com/outrigger-mesh/outrigger/proxy/upstream"
	"github.com/outrigger-mesh/outrigger/telemetry/admin"
)

// Failover is what the admin API says of a cluster's failover.
func Failover(list []upstream.FailoverState) (views []admin.FailoverView) {
	for i := range list {
		f := &list[i]
		v := admin.FailoverView{Cluster: f.Name, Endpoints: f.Endpoints, Available: f.Available, InUse: f.InUse, Identities: f.Identities}
		if f.TLS != nil {
			v.ServerName = f.TLS.ServerName
		}
		views = append(views, v)
	}
	return views
}

// inUse reports whether another service has the first attempts of a cluster now.
func inUse(list []upstream.FailoverState) bool {
	for i := range list {
		if list[i].InUse {
			return true
		}
	}
	return false
}
