package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/terse-llm/terse/cluster"
)

// host is where processes run: this machine's loopback, or a network namespace.
type host struct {
	ns string // "" = the tests' own
	ip string
}

func loopback() host { return host{ip: "127.0.0.1"} }

func (h host) start(t *testing.T, name string, argv ...string) *process {
	t.Helper()
	if h.ns != "" {
		argv = append([]string{"ip", "netns", "exec", h.ns}, argv...)
	}
	return start(t, name, argv...)
}

// nats starts a NATS server and returns its URL: on loopback the one that terse
// embeds unless another is installed, in a namespace always a process.
func (h host) nats(t *testing.T) string {
	t.Helper()
	bin := installedNATS()
	if bin == "" && h.ns == "" {
		s, err := cluster.StartServer(cluster.ServerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Shutdown)
		return s.URL()
	}
	if bin == "" {
		var err error
		if bin, err = buildNATS(); err != nil {
			t.Fatal(err)
		}
	}
	p := h.start(t, "nats-server", bin, "-a", h.ip, "-p", "-1")
	addr := p.awaitLog(`Listening for client connections on (\S+)`)[1]
	p.awaitLog(`Server is ready`)
	return "nats://" + addr
}

func installedNATS() string {
	for _, name := range []string{"nats-server", "/usr/sbin/nats-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// buildNATS makes the plain server out of the module that terse embeds.
var buildNATS = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(filepath.Dir(program), "nats-server")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build nats-server: %w\n%s", err, out)
	}
	return bin, nil
})

// worker starts a worker and waits until it has loaded its model.
func (h host) worker(t *testing.T, nats, role, id string, args ...string) *process {
	t.Helper()
	argv := []string{program, "worker", "--role", role, "--id", id, "--nats", nats, "--kv-memory", "128MiB"}
	if !slices.Contains(args, "--data-listen") {
		argv = append(argv, "--data-listen", h.ip+":0")
	}
	if h.ns != "" && !slices.Contains(args, "--cluster-key-file") {
		argv = append(argv, "--insecure") // off loopback, where the program asks for a key
	}
	p := h.start(t, id, append(argv, args...)...)
	p.awaitLog(`worker ready`)
	return p
}

// api is a process with the OpenAI API, and a client of it.
type api struct {
	*process
	*client
}

// gateway starts a gateway and waits until it knows the workers. All work is done by
// one machine here, on which staying may be as fast as splitting: it is told to split.
func (h host) gateway(t *testing.T, nats string, args []string, workers ...string) api {
	t.Helper()
	argv := []string{program, "gateway", "--nats", nats, "--listen", h.ip + ":0", "--local-below", "-1"}
	if h.ns != "" {
		argv = append(argv, "--insecure") // off loopback, where the program asks for a key
	}
	p := h.start(t, "gateway", append(argv, args...)...)
	url := p.awaitLog(`gateway ready.* api=(\S+)/v1`)[1]
	for _, id := range workers {
		p.awaitLog(`member joined.* id=` + id + ` `)
	}
	a := api{p, newClient(t, url, h.ns)}
	a.awaitReady()
	return a
}

// serve starts everything in one process.
func (h host) serve(t *testing.T, args ...string) api {
	t.Helper()
	argv := []string{program, "serve", "--listen", h.ip + ":0", "--kv-memory", "128MiB"}
	p := h.start(t, "serve", append(argv, args...)...)
	a := api{p, newClient(t, p.awaitLog(`at (http://\S+)/v1`)[1], h.ns)}
	a.awaitReady()
	return a
}

// observer sees the workers' records as a gateway does.
func observer(t *testing.T, nats string) *cluster.Conn {
	t.Helper()
	conn, err := cluster.Connect(t.Context(), cluster.Options{URL: nats, Name: "observer"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// awaitMember waits until a worker's record is as wanted. It asks for records all the
// time: between two that come by themselves a fast machine does much.
func awaitMember(t *testing.T, conn *cluster.Conn, id, what string, ok func(cluster.Member) bool) {
	t.Helper()
	var last cluster.Member
	if !poll(func() bool {
		v, err := conn.WatchQuietly(t.Context()) // which asks
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		said, found := false, false
		answer, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = v.Wait(answer, func(members []cluster.Member) bool { // an error is the time to ask again
			for _, m := range members {
				if m.ID == id {
					last, said = m, true
					found = ok(m)
				}
			}
			return said
		})
		return found
	}) {
		t.Fatalf("worker %s is never %s: %+v", id, what, last)
	}
}

func busy(m cluster.Member) bool { return m.Running > 0 }

func idle(m cluster.Member) bool {
	return m.Running == 0 && m.Waiting == 0 && m.KVFree == m.KVTotal
}

// freeAddress is an address on loopback that nothing listened on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// keyFile is a file with a cluster's key.
func keyFile(t *testing.T, key string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
