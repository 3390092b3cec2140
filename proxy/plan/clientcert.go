package plan

// ClientCert says what is made of the field x-forwarded-client-cert on a listener. The zero value removes it.
type ClientCert struct {
	Keep bool // what came with a request by mTLS goes on, in front
	Set  bool // an element for the caller is added
	// What is in the element beside By and Hash.
	Cert, Chain, Subject, URI, DNS bool
}
