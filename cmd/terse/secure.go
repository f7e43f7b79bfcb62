package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse/transfer"
	"github.com/terse-llm/terse/transfer/tcp"
)

// secureFlags say who may exchange KV with a worker, and under which cover.
type secureFlags struct {
	keyFile           string
	cert, certKey, ca string
	insecure          bool
}

func (f *secureFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.keyFile, "cluster-key-file", "", "file with the secret of the cluster, the same for all workers: peers without it get no KV")
	c.Flags().StringVar(&f.cert, "tls-cert", "", "certificate of this worker, for TLS 1.3 on the data port (PEM)")
	c.Flags().StringVar(&f.certKey, "tls-key", "", "key of --tls-cert (PEM)")
	c.Flags().StringVar(&f.ca, "tls-ca", "", "authority that signed the workers' certificates (PEM)")
	c.Flags().BoolVar(&f.insecure, "insecure", false, "exchange KV off loopback without a key or certificates")
}

// load reads what the flags name. A data port that faces the network needs a
// key or certificates.
func (f *secureFlags) load(listen string) (key []byte, secure *tls.Config, err error) {
	if f.keyFile != "" {
		raw, err := os.ReadFile(f.keyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read --cluster-key-file: %w", err)
		}
		key = bytes.TrimSpace(raw)
		if err := transfer.CheckKey(key); err != nil {
			return nil, nil, fmt.Errorf("cannot use --cluster-key-file %s: %w", f.keyFile, err)
		}
	}
	given := 0
	for _, name := range []string{f.cert, f.certKey, f.ca} {
		if name != "" {
			given++
		}
	}
	switch {
	case given == 3:
		if secure, err = tcp.Secure(f.cert, f.certKey, f.ca); err != nil {
			return nil, nil, err
		}
	case given > 0:
		return nil, nil, fmt.Errorf("--tls-cert, --tls-key and --tls-ca belong together: give all three, or none")
	}
	if key == nil && secure == nil && !f.insecure && !loopback(listen) {
		return nil, nil, fmt.Errorf("--data-listen %s is open to the network: give --cluster-key-file FILE, or --tls-cert, --tls-key and --tls-ca, or --insecure to let everyone in", listen)
	}
	return key, secure, nil
}

// loopback reports whether only this machine reaches a listen address.
func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
