package tcp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates into files.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{t: t}
	a.file, _, a.cert, a.key = a.issue("authority", true)
	return a
}

func (a authority) issue(name string, ca bool) (certFile, keyFile string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	parent, signer := a.cert, a.key
	if ca {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	dir := a.t.TempDir()
	write := func(file, kind string, b []byte) string {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			a.t.Fatal(err)
		}
		return path
	}
	cert, err = x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", raw), cert, key
}

func (a authority) config(ca string) *tls.Config {
	a.t.Helper()
	cert, key, _, _ := a.issue("worker", false)
	c, err := Secure(cert, key, ca)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// Both sides need a certificate of the cluster's authority, and TLS 1.3.
func TestSecure(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	server := ours.config(ours.file)
	l, err := Listen("127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "in")
			c.Close()
		}
	}()
	f := func(what string, config *tls.Config, in bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c, err := Dialer(config)(ctx, l.Addr().String())
		said := ""
		if err == nil {
			if config == nil { // each waits for the other to begin
				c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			}
			b := make([]byte, 2)
			_, err = io.ReadFull(c, b)
			said = string(b)
			c.Close()
		}
		if (err == nil && said == "in") != in {
			t.Errorf("%s: %q, %v", what, said, err)
		}
	}
	f("a worker", ours.config(ours.file), true)
	f("another authority's certificate", theirs.config(ours.file), false)
	f("a server that the worker does not trust", ours.config(theirs.file), false)
	bare := ours.config(ours.file)
	bare.Certificates = nil
	f("no certificate", bare, false)
	old := ours.config(ours.file)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	f("TLS 1.2", old, false)
	f("no TLS", nil, false)
}

func TestSecureNeedsFiles(t *testing.T) {
	a := newAuthority(t)
	cert, key, _, _ := a.issue("worker", false)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(cert, key, ca, says string) {
		t.Helper()
		if _, err := Secure(cert, key, ca); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
	f("none", key, a.file, "none")
	f(cert, key, "none", "none")
	f(cert, key, empty, "no PEM")
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(l.Addr().String(), nil); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}
