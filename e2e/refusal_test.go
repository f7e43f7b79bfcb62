package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/internal/defaultmodel"
)

// What can never be answered is refused by name, and the server goes on.
func TestRequestsRefused(t *testing.T) {
	s := loopback().serve(t, "--ctx", "512")
	f := func(what, body string, status int, code string, words ...string) {
		t.Helper()
		res, err := s.http.Post(s.url+"/v1/completions", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer res.Body.Close()
		a, err := readAnswer(res)
		if err != nil || a.status != status || a.fault.Code != code {
			t.Errorf("%s: status %d, %+v, %v; want %d, code %q", what, a.status, a.fault, err, status, code)
		}
		for _, w := range words {
			if !strings.Contains(a.fault.Message, w) {
				t.Errorf("%s: the message does not say %q: %s", what, w, a.fault.Message)
			}
		}
	}
	long := strings.TrimSuffix(strings.Repeat("300,", 600), ",")
	f("prompt longer than the context", `{"prompt":[`+long+`],"max_tokens":1}`, 400, "context_length_exceeded", "600", "512")
	f("answer beyond the context", `{"prompt":[300],"max_tokens":512}`, 400, "context_length_exceeded", "512")
	f("negative max_tokens", `{"prompt":"a","max_tokens":-1}`, 400, "invalid_value", "max_tokens", "-1")
	f("invalid UTF-8", "{\"prompt\":\"a\xffb\"}", 400, "invalid_utf8", "0xff")
	f("unknown model", `{"model":"nobody","prompt":"a"}`, 404, "model_not_found", "nobody")
	f("unknown token", `{"prompt":[8192]}`, 400, "invalid_value", "8192")
	f("no prompt", `{"prompt":""}`, 400, "invalid_value", "prompt")
	f("no JSON", `prompt`, 400, "invalid_json")
	f("unknown field", `{"prompt":"a","no_such_field":1}`, 400, "unknown_parameter", "no_such_field")
	s.awaitFree()
	s.ask(greedy(passage(t, 0, 20), 2))
}

// A body of 100 MB is refused on sight where its length is told, and else when
// it is over the limit.
func TestHugeBody(t *testing.T) {
	s := loopback().serve(t)
	const size = 100 << 20
	f := func(what, header string, body func(w io.Writer) (int, error), most int) {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: terse\r\nContent-Type: application/json\r\n%s\r\n\r\n", header)
		taken := make(chan int)
		go func() {
			n, _ := body(conn) // the server stops reading: that is the point
			taken <- n
		}()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer res.Body.Close()
		if a, err := readAnswer(res); err != nil || a.status != http.StatusRequestEntityTooLarge || a.fault.Code != "request_too_large" {
			t.Errorf("%s: status %d, %+v, %v", what, a.status, a.fault, err)
		}
		conn.Close()
		if n := <-taken; n > most {
			t.Errorf("%s: %d bytes were taken", what, n)
		}
	}
	piece := bytes.Repeat([]byte(" "), 1<<20)
	f("told", fmt.Sprintf("Content-Length: %d", size), func(io.Writer) (int, error) { return 0, nil }, 0)
	f("chunked", "Transfer-Encoding: chunked", func(w io.Writer) (n int, err error) {
		for ; err == nil && n < size; n += len(piece) {
			_, err = fmt.Fprintf(w, "%x\r\n%s\r\n", len(piece), piece)
		}
		return n, err
	}, 32<<20)
	s.ask(greedy(passage(t, 0, 20), 2))
}

// A stranger on the data port is closed and logged, and the worker goes on.
func TestStrangersOnTheDataPort(t *testing.T) {
	h := loopback()
	nats := h.nats(t)
	p := h.worker(t, nats, "prefill", "prefill-a")
	h.worker(t, nats, "decode", "decode-a")
	g := h.gateway(t, nats, nil, "prefill-a", "decode-a")
	addr := p.awaitLog(`worker ready.* data=(\S+)`)[1]
	f := func(said string) {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, said); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		answer, err := io.ReadAll(conn)
		if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("the worker keeps a connection open that said %.20q; it answered %q", said, answer)
		}
	}
	f("GET / HTTP/1.1\r\nHost: terse\r\n\r\n")
	f("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client hello")
	f(strings.Repeat("\xff", 1<<16))
	f("short") // and then nothing: the handshake's time limit ends it
	p.awaitLog(`level=WARN msg="refused a KV connection".*does not speak Terse's KV protocol.*GET /`)
	wantSplit(t, g.ask(greedy(passage(t, 0, 300), 2)))
}

// A worker with another KV format does not get into a cluster.
func TestMismatchIsRefusedAtJoining(t *testing.T) {
	h := loopback()
	nats := h.nats(t)
	h.worker(t, nats, "decode", "decode-a", "--kv", "hq3")
	g := h.gateway(t, nats, nil, "decode-a")
	p := start(t, "newcomer", program, "worker", "--role", "prefill", "--id", "newcomer", "--nats", nats, "--kv", "hq2")
	if status := p.exit(); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	p.awaitLog(`terse: .*decode-a.*hq3.*newcomer.*hq2`)
	g.ask(greedy(passage(t, 0, 300), 2))
}

// Workers that do not match and are there nevertheless (they started at the
// same moment) get no requests: every one is refused, naming both.
func TestMismatchIsRefusedAtRouting(t *testing.T) {
	h := loopback()
	nats := h.nats(t)
	h.worker(t, nats, "decode", "decode-a", "--kv", "hq3")
	g := h.gateway(t, nats, nil, "decode-a")
	var other cluster.Member
	awaitMember(t, observer(t, nats), "decode-a", "there", func(m cluster.Member) bool { other = m; return true })
	other.ID, other.Role, other.Format = "odd-one", terse.RolePrefill, "hq2"
	conn, err := cluster.Connect(t.Context(), cluster.Options{URL: nats})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		left <- conn.Serve(ctx, cluster.Worker{Record: func() cluster.Member { return other }})
	}()
	g.awaitLog(`member joined.* id=odd-one `)
	a, err := g.try(t.Context(), greedy(passage(t, 0, 300), 2))
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, a, terse.CodeMismatch)
	for _, word := range []string{"decode-a", "odd-one", "hq2", "hq3"} {
		if !strings.Contains(a.fault.Message, word) {
			t.Errorf("the message does not say %q: %s", word, a.fault.Message)
		}
	}
	if status, body, err := g.get("/readyz"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("/readyz says %d %s, %v while no request can run", status, body, err)
	}
	leave()
	if err := <-left; err != nil {
		t.Error(err)
	}
	g.awaitReady()
	g.ask(greedy(passage(t, 0, 300), 2))
}

// A gateway with another model than its workers is refused at its start, and a
// worker with another than its gateway gets no requests: neither would be seen
// in the text that comes out.
func TestGatewayAndWorkersOfDifferentModels(t *testing.T) {
	h := loopback()
	nats := h.nats(t)
	dir := modelDirectory(t)
	config := filepath.Join(dir, "tokenizer_config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, '\n'), 0o600); err != nil { // as little as a different line end
		t.Fatal(err)
	}
	w := h.worker(t, nats, "decode", "decode-a")
	p := start(t, "gateway", program, "gateway", "--nats", nats, "--listen", h.ip+":0", "--model", dir)
	if status := p.exit(); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	p.awaitLog(`terse: cannot serve this cluster: worker "decode-a".*tokenizer.*same --model`)

	g := h.gateway(t, nats, nil, "decode-a")
	w.stop()
	h.worker(t, nats, "decode", "decode-b", "--model", dir)
	g.awaitLog(`member joined.* id=decode-b `)
	a, err := g.try(t.Context(), greedy(passage(t, 0, 300), 2))
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, a, terse.CodeMismatch)
	g.awaitLog(`level=ERROR msg="a worker is not used" id=decode-b`)
	h.worker(t, nats, "decode", "decode-c")
	g.awaitReady()
	g.ask(greedy(passage(t, 0, 300), 2))
}

// modelDirectory is the built-in model as a user's directory.
func modelDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, defaultmodel.FS()); err != nil {
		t.Fatal(err)
	}
	return dir
}
