package file

import (
	"maps"
	"strings"
	"testing"
	"time"
)

func TestPlace(t *testing.T) {
	list, err := decode("c.yaml", []byte(`services:
  api:
    endpoints:
      - {address: "10.0.0.1:80", region: eu, zone: eu-1, metadata: {version: "2", stage: live}, tags: [blue]}
      - {address: "10.0.0.2:80", zone: eu-2, priority: 1, state: draining, meta: {version: "1"}}
      - {address: "10.0.0.3:80", state: active}
`), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e := list[0].Endpoints
	got := map[string]string{}
	e[0].Metadata(func(k, v string) { got[k] = v })
	if want := map[string]string{"version": "2", "stage": "live", "tag.blue": "true"}; !maps.Equal(got, want) {
		t.Errorf("metadata %v, want %v", got, want)
	}
	if e[0].Region != "eu" || e[0].Zone != "eu-1" || e[0].Priority != 0 || e[0].Draining != "" {
		t.Errorf("%+v", e[0])
	}
	if e[1].Region != "" || e[1].Zone != "eu-2" || e[1].Priority != 1 || e[1].Draining == "" || e[1].Meta["version"] != "1" {
		t.Errorf("%+v", e[1])
	}
	if e[2].Draining != "" {
		t.Errorf("%+v", e[2])
	}
}

func TestPlaceMistakes(t *testing.T) {
	for text, want := range map[string]string{
		`priority: -1`:                       `c.yaml:1:82: services.api.endpoints[0].priority: -1 is out of range; use 0 (used first) to 65535`,
		`priority: 65536`:                    `priority: 65536 is out of range`,
		`state: asleep`:                      `state: unknown state "asleep"; use active or draining`,
		`meta: {a: b}, metadata: {a: b}`:     `metadata: is given beside meta, which means the same; keep one`,
		`zone: "` + strings.Repeat("z", 129): `zone: is longer than 128 bytes`,
	} {
		if strings.Count(text, `"`)%2 == 1 {
			text += `"`
		}
		_, err := decode("c.yaml", []byte(`services: {api: {endpoints: [{address: "10.0.0.1:80", id: x, tags: [], `+text+"}]}}\n"), time.Now())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
