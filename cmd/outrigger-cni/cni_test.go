package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
	"github.com/outrigger-mesh/outrigger/proxy/intercept"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }

// rulesJSON is what Consul's tools write.
const rulesJSON = `{"ProxyUserID":"5995","ProxyInboundPort":20000,"ExcludeInboundPorts":["21000"],"NetNS":"/not/used"}`

const prev = `"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"address":"10.0.0.7/24"}],"extra":{"kept":1}}`

// ask makes a call as a runtime does and returns what is printed, and the code.
func ask(t *testing.T, env map[string]string, stdin string) (map[string]any, int) {
	t.Helper()
	full := map[string]string{"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
	for k, v := range env {
		full[k] = v
	}
	var out bytes.Buffer
	code := run(t.Context(), "outrigger-cni", func(k string) string { return full[k] }, strings.NewReader(stdin), &out)
	var answer map[string]any
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
			t.Fatalf("%v: %s", err, out.Bytes())
		}
	}
	return answer, code
}

// pod is a network namespace in which rules can be written.
func pod(t *testing.T) *testkit.NetNS {
	t.Helper()
	ns := testkit.NewNetNS(t)
	c := intercept.Config{ProxyUIDs: []intercept.Range{{Lo: 1, Hi: 1}}}
	if err := c.Complete(); err != nil {
		t.Fatal(err)
	}
	err := inside(ns.Path(), func(h *intercept.Host) error {
		if err := h.Install(t.Context(), c); err != nil {
			testkit.Missing(t, err.Error())
		}
		_, err := h.Remove(c.Table)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func state(t *testing.T, ns *testkit.NetNS, table string) intercept.State {
	t.Helper()
	var s intercept.Status
	err := inside(ns.Path(), func(h *intercept.Host) (err error) {
		s, err = h.Status(table, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.State
}

// From ADD to DEL as Nomad does it: the rules come as an argument.
func TestLifeOfAPod(t *testing.T) {
	ns := pod(t)
	conf := `{"cniVersion":"1.0.0","name":"net","type":"outrigger-cni","before_ready":"hold","table":"mesh",` + prev + `}`
	env := func(command string) map[string]string {
		return map[string]string{"CNI_COMMAND": command, "CNI_NETNS": ns.Path(), "CNI_ARGS": "IgnoreUnknown=true;CONSUL_IPTABLES_CONFIG=" + rulesJSON}
	}
	if _, code := ask(t, env("CHECK"), conf); code == 0 {
		t.Error("CHECK before ADD is content")
	}
	for range 2 { // a runtime may repeat it
		out, code := ask(t, env("ADD"), conf)
		if code != 0 {
			t.Fatal(out)
		}
		if got, _ := json.Marshal(out); !strings.Contains(string(got), `"extra":{"kept":1}`) || out["cniVersion"] != "1.0.0" {
			t.Errorf("the result of the plugin before is not handed on: %s", got)
		}
		if s := state(t, ns, "mesh"); s != intercept.Installed {
			t.Errorf("state %s", s)
		}
		if out, code := ask(t, env("CHECK"), conf); code != 0 || out != nil {
			t.Errorf("CHECK: %v", out)
		}
	}
	ask(t, map[string]string{"CNI_COMMAND": "ADD", "CNI_NETNS": ns.Path(), "CNI_ARGS": `CONSUL_IPTABLES_CONFIG={"ProxyUserID":"7"}`}, conf)
	if out, code := ask(t, env("CHECK"), conf); code == 0 || out["code"] != float64(codeRules) {
		t.Errorf("CHECK of other rules: %v", out)
	}
	for range 2 {
		if out, code := ask(t, env("DEL"), conf); code != 0 {
			t.Errorf("DEL: %v", out)
		}
		if s := state(t, ns, "mesh"); s != intercept.Missing {
			t.Errorf("state %s after DEL", s)
		}
	}
	for _, gone := range []string{"", "/var/run/netns/no-such-pod"} {
		e := env("DEL")
		e["CNI_NETNS"] = gone
		if out, code := ask(t, e, conf); code != 0 {
			t.Errorf("DEL without a namespace: %v", out)
		}
	}
}

// In Kubernetes the rules are an annotation, which the runtime passes or the
// API has. Pods that are not in the mesh are left alone.
func TestKubernetes(t *testing.T) {
	ns := pod(t)
	annotated := map[string]string{annotationMesh: "injected", annotationWant: "enabled", annotationJSON: rulesJSON}
	asked := map[string]bool{}
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked[r.URL.Path+" "+r.Header.Get("Authorization")] = true
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		switch name {
		case "meshed":
			_ = json.NewEncoder(w).Encode(map[string]any{"metadata": map[string]any{"name": name, "annotations": annotated}})
		case "plain":
			_ = json.NewEncoder(w).Encode(map[string]any{"metadata": map[string]any{"name": name}})
		case "other":
			_, _ = w.Write([]byte(`{"metadata":{"name":"meshed"}}`))
		default:
			http.Error(w, "no such pod", http.StatusNotFound)
		}
	}))
	defer api.Close()
	dir := t.TempDir()
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}))
	kubeconfig := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: local
  cluster: {server: "%s", certificate-authority-data: "%s"}
users:
- name: cni
  user: {tokenFile: token}
contexts:
- name: ctx
  context: {cluster: local, user: cni}
current-context: ctx
`, api.URL, ca)
	for name, text := range map[string]string{"kubeconfig": kubeconfig, "token": "s3cret\n", "wrong": strings.Replace(kubeconfig, ca, "", 1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	passed, _ := json.Marshal(annotated)
	for _, x := range []struct {
		name, pod, extra string
		want             intercept.State
		code             int
	}{
		{"by the API", "meshed", fmt.Sprintf(`"kubeconfig":"kubeconfig","cni_net_dir":%q,`, dir), intercept.Installed, 0},
		{"by the runtime", "unknown", `"runtimeConfig":{"io.kubernetes.cri.pod-annotations":` + string(passed) + `},`, intercept.Installed, 0},
		{"not in the mesh", "plain", fmt.Sprintf(`"kubeconfig":"kubeconfig","cni_net_dir":%q,`, dir), intercept.Missing, 0},
		{"no means to know", "meshed", ``, intercept.Missing, 0},
		{"in the mesh, no rules", "x", `"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"` + annotationMesh + `":"injected","` + annotationWant + `":"enabled"}},`, intercept.Missing, codeConfig},
		{"rules that are none", "x", `"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"` + annotationMesh + `":"injected","` + annotationWant + `":"enabled","` + annotationJSON + `":"{\"ProxyUID\":1}"}},`, intercept.Missing, codeConfig},
		{"no such pod", "gone", fmt.Sprintf(`"kubeconfig":"kubeconfig","cni_net_dir":%q,`, dir), intercept.Missing, codeLater},
		{"another pod's answer", "other", fmt.Sprintf(`"kubeconfig":"kubeconfig","cni_net_dir":%q,`, dir), intercept.Missing, codeLater},
		{"a server that is not known", "meshed", fmt.Sprintf(`"kubeconfig":"wrong","cni_net_dir":%q,`, dir), intercept.Missing, codeLater},
		{"no kubeconfig", "meshed", fmt.Sprintf(`"kubeconfig":"absent","cni_net_dir":%q,`, dir), intercept.Missing, codeLater},
	} {
		t.Run(x.name, func(t *testing.T) {
			conf := `{"cniVersion":"0.4.0","name":"net","type":"outrigger-cni","log_level":"info",` + x.extra + prev + `}`
			env := map[string]string{"CNI_COMMAND": "ADD", "CNI_NETNS": ns.Path(), "CNI_ARGS": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=" + x.pod}
			out, code := ask(t, env, conf)
			if (code != 0) != (x.code != 0) || x.code != 0 && (out["code"] != float64(x.code) || out["cniVersion"] != "0.4.0" || out["msg"] == "") {
				t.Errorf("%d %v, want %d", code, out, x.code)
			}
			if s := state(t, ns, intercept.DefaultTable); s != x.want {
				t.Errorf("state %s, want %s", s, x.want)
			}
			env["CNI_COMMAND"] = "DEL"
			if out, code := ask(t, env, conf); code != 0 {
				t.Error(out)
			}
		})
	}
	if !asked["/api/v1/namespaces/shop/pods/meshed Bearer s3cret"] {
		t.Errorf("asked for %v", asked)
	}
}

// Errors have the form and the codes of the specification.
func TestErrors(t *testing.T) {
	for _, x := range []struct {
		name string
		env  map[string]string
		conf string
		code uint // 0: none
	}{
		{"version", map[string]string{"CNI_COMMAND": "VERSION"}, `{"cniVersion":"0.4.0"}`, 0},
		{"no JSON", map[string]string{"CNI_COMMAND": "ADD"}, `{`, codeDecode},
		{"an old version", map[string]string{"CNI_COMMAND": "ADD"}, `{"cniVersion":"0.2.0"}`, codeVersion},
		{"CHECK too early", map[string]string{"CNI_COMMAND": "CHECK"}, `{"cniVersion":"0.3.1",` + prev + `}`, codeVersion},
		{"GC", map[string]string{"CNI_COMMAND": "GC"}, `{"cniVersion":"1.1.0"}`, 0},
		{"STATUS", map[string]string{"CNI_COMMAND": "STATUS"}, `{"cniVersion":"1.1.0"}`, 0},
		{"not chained", map[string]string{"CNI_COMMAND": "ADD", "CNI_NETNS": "/x"}, `{"cniVersion":"1.0.0"}`, codeConfig},
		{"no namespace", map[string]string{"CNI_COMMAND": "ADD", "CNI_ARGS": "CONSUL_IPTABLES_CONFIG=" + rulesJSON}, `{"cniVersion":"1.0.0",` + prev + `}`, codeEnvironment},
		{"a namespace that is gone", map[string]string{"CNI_COMMAND": "ADD", "CNI_NETNS": "/no/such", "CNI_ARGS": "CONSUL_IPTABLES_CONFIG=" + rulesJSON}, `{"cniVersion":"1.0.0",` + prev + `}`, codeUnknownContainer},
		{"allow", map[string]string{"CNI_COMMAND": "ADD", "CNI_NETNS": "/x", "CNI_ARGS": "CONSUL_IPTABLES_CONFIG=" + rulesJSON}, `{"cniVersion":"1.0.0","before_ready":"allow",` + prev + `}`, codeConfig},
		{"arguments", map[string]string{"CNI_COMMAND": "ADD", "CNI_ARGS": "x"}, `{"cniVersion":"1.0.0",` + prev + `}`, codeEnvironment},
		{"no container", map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": ""}, `{"cniVersion":"1.0.0",` + prev + `}`, codeEnvironment},
		{"a command", map[string]string{"CNI_COMMAND": "UPDATE"}, `{"cniVersion":"1.0.0",` + prev + `}`, codeEnvironment},
	} {
		t.Run(x.name, func(t *testing.T) {
			out, code := ask(t, x.env, x.conf)
			if (code == 0) != (x.code == 0) {
				t.Errorf("exit code %d: %v", code, out)
			}
			if x.code != 0 && (out["code"] != float64(x.code) || out["msg"] == "" || out["cniVersion"] == "") {
				t.Errorf("%v, want code %d", out, x.code)
			}
			if x.name == "version" && fmt.Sprint(out["supportedVersions"]) != fmt.Sprint(versions) {
				t.Errorf("%v", out)
			}
		})
	}
	for name, want := range map[string]string{"outrigger-cni": "outrigger-cni dev: a CNI plugin", "consul-cni": "CNI plugin consul-cni 1.4.2 (in its place:"} {
		var out bytes.Buffer
		if code := run(t.Context(), name, func(string) string { return "" }, strings.NewReader(""), &out); code != 0 || !strings.HasPrefix(out.String(), want) {
			t.Errorf("%s by hand: %d %s", name, code, out.String())
		}
	}
}

// Whatever stands on standard input, the answer is one that a runtime can read.
func FuzzConf(f *testing.F) {
	f.Add("ADD", "a=b;CONSUL_IPTABLES_CONFIG="+rulesJSON, `{"cniVersion":"1.0.0",`+prev+`}`)
	f.Add("CHECK", "", `{"cniVersion":"0.4.0","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"b"}}}`)
	f.Fuzz(func(t *testing.T, command, args, conf string) {
		if c, err := readConf(strings.NewReader(conf)); err == nil && c.Kubeconfig != "" {
			return // it would be opened
		}
		env := map[string]string{"CNI_COMMAND": command, "CNI_ARGS": args, "CNI_CONTAINERID": "c", "CNI_IFNAME": "e"}
		var out bytes.Buffer
		code := run(t.Context(), "outrigger-cni", func(k string) string { return env[k] }, strings.NewReader(conf), &out)
		if command == "" {
			return
		}
		var answer map[string]any
		if err := json.Unmarshal(out.Bytes(), &answer); out.Len() > 0 && err != nil || code != 0 && answer["msg"] == nil {
			t.Fatalf("%d %q", code, out.String())
		}
	})
}
