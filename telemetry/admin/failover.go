package admin

import (
	"fmt"
	"strings"
)

// FailoverView is a service that has the attempts of another one while none of
// that one's endpoints is available.
type FailoverView struct {
	Cluster    string   `json:"cluster"`
	Endpoints  int      `json:"endpoints"`
	Available  int      `json:"available"`
	InUse      bool     `json:"in_use"` // first attempts go to it now
	Identities []string `json:"identities,omitempty"`
	ServerName string   `json:"server_name,omitempty"`
}

func (v *FailoverView) text() string {
	text := fmt.Sprintf("%s, %d of %d endpoints available", v.Cluster, v.Available, v.Endpoints)
	if len(v.Identities) > 0 {
		text += ", " + strings.Join(v.Identities, " or ")
	}
	if v.ServerName != "" {
		text += ", SNI " + v.ServerName
	}
	if v.InUse {
		text += "; in use now"
	}
	return text
}

// failover says who else may be asked.
func (t *teller) failover(d *DestinationView) {
	margin := "failover"
	for i := range d.Failover {
		t.line(margin, "%s", d.Failover[i].text())
		margin = ""
	}
}
