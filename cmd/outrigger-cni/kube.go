package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

const (
	// defaultNetDir is where CNI configurations are.
	defaultNetDir = "/etc/cni/net.d"
	// apiTime bounds one question to the Kubernetes API, maxPod its answer.
	apiTime = 15 * time.Second
	maxPod  = 8 << 20
)

type kubeCluster struct {
	Server string `yaml:"server"`
	CAFile string `yaml:"certificate-authority"`
	CAData string `yaml:"certificate-authority-data"`
}

type kubeUser struct {
	Token     string `yaml:"token"`
	TokenFile string `yaml:"tokenFile"`
	CertFile  string `yaml:"client-certificate"`
	CertData  string `yaml:"client-certificate-data"`
	KeyFile   string `yaml:"client-key"`
	KeyData   string `yaml:"client-key-data"`
}

// kubeconfig is what is used of such a file: the current context's server, and
// a token or a certificate to log in there.
type kubeconfig struct {
	CurrentContext string `yaml:"current-context"`
	Contexts       []struct {
		Name    string `yaml:"name"`
		Context struct {
			Cluster string `yaml:"cluster"`
			User    string `yaml:"user"`
		} `yaml:"context"`
	} `yaml:"contexts"`
	Clusters []struct {
		Name    string      `yaml:"name"`
		Cluster kubeCluster `yaml:"cluster"`
	} `yaml:"clusters"`
	Users []struct {
		Name string   `yaml:"name"`
		User kubeUser `yaml:"user"`
	} `yaml:"users"`
}

// current returns the cluster and the user of the current context.
func (k *kubeconfig) current() (c kubeCluster, u kubeUser, err error) {
	for _, x := range k.Contexts {
		if x.Name != k.CurrentContext {
			continue
		}
		for _, y := range k.Clusters {
			if y.Name == x.Context.Cluster {
				c = y.Cluster
			}
		}
		for _, y := range k.Users {
			if y.Name == x.Context.User {
				u = y.User
			}
		}
	}
	if !strings.HasPrefix(c.Server, "https://") {
		return c, u, fmt.Errorf("the current context %q names no server with https://", k.CurrentContext)
	}
	return c, u, nil
}

// material returns what stands in data, in base64, or in the file.
func material(dir, data, file string) ([]byte, error) {
	if data != "" {
		return base64.StdEncoding.DecodeString(data)
	}
	if file == "" {
		return nil, nil
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	return os.ReadFile(file)
}

// readAnnotations asks the Kubernetes API for the annotations of a pod.
func (c *netConf) readAnnotations(ctx context.Context, namespace, pod string) (map[string]string, error) {
	file := c.Kubeconfig
	if !filepath.IsAbs(file) {
		dir := c.CNINetDir
		if dir == "" {
			dir = defaultNetDir
		}
		file = filepath.Join(dir, file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var k kubeconfig
	if err := yaml.Unmarshal(text, &k); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	cluster, user, err := k.current()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	conf, token, err := login(filepath.Dir(file), cluster, user)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	transport := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: apiTime}
	at, err := url.JoinPath(cluster.Server, "api/v1/namespaces", url.PathEscape(namespace), "pods", url.PathEscape(pod))
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPod))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the Kubernetes API answers %s: %.200s", resp.Status, body)
	}
	var answer struct {
		Metadata struct {
			Name        string            `json:"name"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	if answer.Metadata.Name != pod {
		return nil, fmt.Errorf("the Kubernetes API answers with %q", answer.Metadata.Name)
	}
	return answer.Metadata.Annotations, nil
}

// login makes of a cluster and a user how to be sure of the server, and how it
// can be sure of us.
func login(dir string, cluster kubeCluster, user kubeUser) (*tls.Config, string, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	ca, err := material(dir, cluster.CAData, cluster.CAFile)
	if err != nil {
		return nil, "", err
	}
	if ca != nil {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(ca) {
			return nil, "", errors.New("the certificate authority is no PEM")
		}
	}
	cert, err := material(dir, user.CertData, user.CertFile)
	if err != nil {
		return nil, "", err
	}
	key, err := material(dir, user.KeyData, user.KeyFile)
	if err != nil {
		return nil, "", err
	}
	if cert != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, "", err
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	token := user.Token
	if token == "" {
		b, err := material(dir, "", user.TokenFile)
		if err != nil {
			return nil, "", err
		}
		token = strings.TrimSpace(string(b))
	}
	if token == "" && cert == nil {
		return nil, "", errors.New("the user has neither a token nor a certificate: programs that log in are not supported")
	}
	return conf, token, nil
}
