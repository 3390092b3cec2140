// Package mesh follows what Consul's service mesh says about one sidecar: its registration, the chains and instances of its upstreams, who may call it.
package mesh

import (
	"encoding/json"
	"fmt"
	"time"
)

// The types of this file are the answers of Consul's HTTP API, as far as a
// sidecar uses them. The typed client drops some of these fields, among them
// those that forbid something.

// Duration is one that Consul writes as "5s" in some places and as integer
// nanoseconds in others.
type Duration time.Duration

// UnmarshalJSON implements json.Unmarshaler. null and "" are 0.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	switch v := v.(type) {
	case nil:
		*d = 0
	case float64:
		*d = Duration(v)
	case string:
		if v == "" {
			*d = 0
			return nil
		}
		parsed, err := time.ParseDuration(v)
		if err != nil {
			return err
		}
		*d = Duration(parsed)
	default:
		return fmt.Errorf("%s is no duration", b)
	}
	return nil
}

// Registration is the sidecar's own, with the central configuration merged in.
type Registration struct {
	Kind            string
	ID              string
	Service         string
	Node            string // of the catalog; empty from an agent
	Address         string
	Port            int
	SocketPath      string
	Datacenter      string
	Namespace       string
	Partition       string
	Tags            []string
	Meta            map[string]string
	TaggedAddresses map[string]TaggedAddress
	Proxy           Proxy
	Connect         struct{ Native bool }
}

// TaggedAddress is one of the further addresses of a service or node.
type TaggedAddress struct {
	Address string
	Port    int
}

// Proxy is the part of a registration that says what the sidecar stands beside
// and what it calls.
type Proxy struct {
	DestinationServiceName string
	DestinationServiceID   string
	LocalServiceAddress    string
	LocalServicePort       int
	LocalServiceSocketPath string
	Mode                   string // "", "direct" or "transparent"
	TransparentProxy       struct {
		OutboundListenerPort int
		DialedDirectly       bool
	}
	MutualTLSMode string // "", "strict" or "permissive"; not in what an agent answers
	Config        map[string]any
	Upstreams     []Upstream
	MeshGateway   MeshGateway
	Expose        struct {
		Checks bool
		Paths  []ExposePath
	}
	AccessLogs      AccessLogs
	EnvoyExtensions []map[string]any
}

// MeshGateway says through which gateways other datacenters are reached: "",
// "none", "local" or "remote".
type MeshGateway struct{ Mode string }

// ExposePath is a path of the application that may be asked without mTLS.
type ExposePath struct {
	ListenerPort    int
	Path            string
	LocalPathPort   int
	Protocol        string
	ParsedFromCheck bool
}

// AccessLogs says what is logged of exchanges.
type AccessLogs struct {
	Enabled             bool
	DisableListenerLogs bool
	Type                string // "stdout", "stderr" or "file"
	Path                string
	JSONFormat          string
	TextFormat          string
}

// Upstream is a service that the application calls.
type Upstream struct {
	DestinationType      string // "service" or "prepared_query"
	DestinationName      string
	DestinationNamespace string
	DestinationPartition string
	DestinationPeer      string
	Datacenter           string
	LocalBindAddress     string
	LocalBindPort        int
	LocalBindSocketPath  string
	LocalBindSocketMode  string
	Config               map[string]any
	MeshGateway          MeshGateway
	CentrallyConfigured  bool
}

// Destination is what a service-defaults entry has outside the mesh.
type Destination struct {
	Name      string
	Addresses []string
	Port      int
}

// Chain is a compiled discovery chain.
type Chain struct {
	ServiceName       string
	Namespace         string
	Partition         string
	Datacenter        string
	Protocol          string
	StartNode         string
	Default           bool
	CustomizationHash string
	ServiceMeta       map[string]string
	EnvoyExtensions   []map[string]any
	Nodes             map[string]*Node
	Targets           map[string]*Target
	AutoVirtualIPs    []string
	ManualVirtualIPs  []string
}

// Node is a step of a chain, of one of three types.
type Node struct {
	Type         string // "router", "splitter" or "resolver"
	Name         string
	Routes       []*ChainRoute
	Splits       []*ChainSplit
	Resolver     *Resolver
	LoadBalancer *LoadBalancer
}

// ChainRoute is a route of a router.
type ChainRoute struct {
	Definition *RouteDefinition
	NextNode   string
}

// RouteDefinition is a route of a service-router entry.
type RouteDefinition struct {
	Match *struct {
		HTTP *struct {
			PathExact, PathPrefix, PathRegex string
			CaseInsensitive                  bool
			Header                           []HeaderMatch
			QueryParam                       []QueryMatch
			Methods                          []string
		}
	}
	Destination *RouteDestination
}

// HeaderMatch is a condition on a header field, in routes and in intentions.
type HeaderMatch struct {
	Name                                   string
	Present                                bool
	Exact, Prefix, Suffix, Contains, Regex string
	Invert, IgnoreCase                     bool
}

// QueryMatch is a condition on a query parameter.
type QueryMatch struct {
	Name         string
	Present      bool
	Exact, Regex string
}

// RouteDestination says where a route leads and how.
type RouteDestination struct {
	Service, ServiceSubset, Namespace, Partition string
	PrefixRewrite                                string
	RequestTimeout, IdleTimeout                  Duration
	NumRetries                                   uint32
	RetryOnConnectFailure                        bool
	RetryOn                                      []string
	RetryOnStatusCodes                           []uint32
	RequestHeaders, ResponseHeaders              *HeaderEdits
}

// HeaderEdits are changes to header fields.
type HeaderEdits struct {
	Add, Set map[string]string
	Remove   []string
}

// ChainSplit is a share of a splitter.
type ChainSplit struct {
	Weight     float64
	NextNode   string
	Definition *struct {
		Weight                                       float64
		Service, ServiceSubset, Namespace, Partition string
		RequestHeaders, ResponseHeaders              *HeaderEdits
	}
}

// Resolver leads to a target and says what follows when it fails.
type Resolver struct {
	Default        bool
	ConnectTimeout Duration
	RequestTimeout Duration
	Target         string
	Failover       *struct {
		Targets []string
		Policy  *struct {
			Mode    string
			Regions []string
		}
	}
}

// LoadBalancer says how an instance is chosen.
type LoadBalancer struct {
	Policy             string
	RingHashConfig     *struct{ MinimumRingSize, MaximumRingSize uint64 }
	LeastRequestConfig *struct{ ChoiceCount uint32 }
	HashPolicies       []struct {
		Field, FieldValue string
		CookieConfig      *struct {
			Session bool
			TTL     Duration
			Path    string
		}
		SourceIP bool
		Terminal bool
	}
}

// Target is a set of instances at the end of a chain.
type Target struct {
	ID                                                       string
	Service, ServiceSubset, Namespace, Partition, Datacenter string
	Peer                                                     string
	External                                                 bool
	SNI                                                      string
	Name                                                     string
	ConnectTimeout                                           Duration
	MeshGateway                                              MeshGateway
	Subset                                                   struct {
		Filter      string
		OnlyPassing bool
	}
	TransparentProxy struct{ DialedDirectly bool }
}

// Intention says whether a source may call the own service.
type Intention struct {
	SourceNS, SourceName, SourcePartition, SourcePeer, SourceSamenessGroup string
	DestinationNS, DestinationName, DestinationPartition                   string
	SourceType                                                             string
	Action                                                                 string // "allow" or "deny"; empty with Permissions
	Permissions                                                            []Permission
	JWT                                                                    *JWTRequirement
	Precedence                                                             int
	ID, Description                                                        string

	// Unknown are the fields that this version does not know; such an intention
	// must not allow anything.
	Unknown []string `json:",omitempty"`
}

// Permission is one of the ordered rules of an intention for HTTP.
type Permission struct {
	Action string
	HTTP   *struct {
		PathExact, PathPrefix, PathRegex string
		Header                           []HeaderMatch
		Methods                          []string
	}
	JWT *JWTRequirement
}

// JWTRequirement asks for a token of one of several providers.
type JWTRequirement struct {
	Providers []struct {
		Name         string
		VerifyClaims []struct {
			Path  []string
			Value string
		}
	}
}

// JWKSRetryPolicy says how a provider's keys are asked for again.
type JWKSRetryPolicy struct {
	NumRetries         int
	RetryPolicyBackOff *struct{ BaseInterval, MaxInterval Duration }
}

// JWTProvider is a jwt-provider entry.
type JWTProvider struct {
	Name          string
	Issuer        string
	Audiences     []string
	JSONWebKeySet *struct {
		Local *struct {
			JWKS     string // base64
			Filename string
		}
		Remote *struct {
			URI                 string
			RequestTimeoutMs    int
			CacheDuration       Duration
			FetchAsynchronously bool
			RetryPolicy         *JWKSRetryPolicy
			JWKSCluster         *struct {
				DiscoveryType   string
				ConnectTimeout  Duration
				TLSCertificates *struct {
					TrustedCA *struct {
						Filename, EnvironmentVariable, InlineString string
						InlineBytes                                 []byte
					}
				}
			}
		}
	}
	Locations []struct {
		Header *struct {
			Name, ValuePrefix string
			Forward           bool
		}
		QueryParam *struct{ Name string }
		Cookie     *struct{ Name string }
	}
	Forwarding *struct {
		HeaderName              string
		PadForwardPayloadHeader bool
	}
	ClockSkewSeconds int
	CacheConfig      *struct{ Size int }

	// Unknown are the fields that this version does not know; such a provider
	// must not vouch for anybody.
	Unknown []string `json:",omitempty"`
}

// MeshEntry is the mesh entry; the zero value is one that is not there.
type MeshEntry struct {
	TransparentProxy                 struct{ MeshDestinationsOnly bool }
	AllowEnablingPermissiveMutualTLS bool
	TLS                              *struct{ Incoming, Outgoing *MeshTLS }
	HTTP                             *struct {
		SanitizeXForwardedClientCert bool
		Incoming                     *struct {
			RequestNormalization *struct {
				InsecureDisablePathNormalization bool
				MergeSlashes                     bool
				PathWithEscapedSlashesAction     string
				HeadersWithUnderscoresAction     string
			}
		}
	}
	Peering          *struct{ PeerThroughMeshGateways bool }
	ValidateClusters bool
}

// MeshTLS bounds the TLS of one direction.
type MeshTLS struct {
	TLSMinVersion, TLSMaxVersion string
	CipherSuites                 []string
}
