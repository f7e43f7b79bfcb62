package cluster

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
)

func TestServerListensOnLoopback(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	host, _, err := net.SplitHostPort(srv.nats.Addr().String())
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1", host)
	c := connect(t, srv, 0)
	require.Equal(t, serverPayload, c.MaxPayload())
	require.NoError(t, c.Connected())
}

func TestServerNamesAnAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, err = StartServer(ServerOptions{Listen: taken.Addr().String()})
	require.ErrorContains(t, err, taken.Addr().String())
	require.ErrorContains(t, err, "in use")
}

func TestServerRefusesListenAddresses(t *testing.T) {
	f := func(listen, want string) {
		t.Helper()
		_, err := StartServer(ServerOptions{Listen: listen})
		require.ErrorContains(t, err, want)
	}
	f("4222", "want host:port")
	f("127.0.0.1:99999", "0..65535")
	f("127.0.0.1:-1", "0..65535")
}

func TestInProcessServerHasNoPort(t *testing.T) {
	srv := startServer(t, ServerOptions{InProcess: true, Token: "secret"})
	require.Empty(t, srv.URL())
	c, err := Connect(testContext(t), Options{Server: srv})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	serve(t, c, worker("d1", echo))
	tokens, err := collect(t, c, "d1", request(1, 2, 3))
	require.NoError(t, err)
	require.Equal(t, []terse.Token{1, 2, 3}, tokens)
}

func TestTokenIsAsked(t *testing.T) {
	srv := startServer(t, ServerOptions{Token: "secret"})
	connect(t, srv, 0) // the URL carries it
	_, err := Connect(testContext(t), Options{URL: "nats://" + srv.nats.Addr().String()})
	require.ErrorContains(t, err, "put user:password@ or token@")
	_, err = Connect(testContext(t), Options{URL: "nats://wrong@" + srv.nats.Addr().String()})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "wrong", "secrets stay out of messages")
}

func TestConnectNamesTheURL(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := nobody.Addr().String()
	require.NoError(t, nobody.Close())
	_, err = Connect(testContext(t), Options{URL: "nats://me:secret@" + address})
	require.ErrorContains(t, err, address)
	require.ErrorContains(t, err, "start a nats-server there")
	require.NotContains(t, err.Error(), "secret")
}

// A port that accepts and says nothing, and one that speaks something else.
func TestConnectToAStranger(t *testing.T) {
	f := func(greeting string) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Write([]byte(greeting))
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err = Connect(ctx, Options{URL: "nats://" + l.Addr().String()})
		require.ErrorContains(t, err, "cannot connect to NATS at nats://"+l.Addr().String())
		require.NoError(t, l.Close())
		<-done
	}
	f("")
	f("SSH-2.0-OpenSSH_9.6\r\n")
}

func TestRedact(t *testing.T) {
	f := func(urls, want string) {
		t.Helper()
		require.Equal(t, want, redact(urls))
	}
	f("nats://a:4222", "nats://a:4222")
	f("nats://user:pw@a:4222,nats://token@b:4222", "nats://a:4222,nats://b:4222")
	f("token@a:4222", "a:4222")
	f("user:p@ss%@a:4222", "a:4222")
	f("", "nats://127.0.0.1:4222")
}

func TestConnectRefusesClusterNames(t *testing.T) {
	f := func(name string) {
		t.Helper()
		_, err := Connect(testContext(t), Options{Cluster: name})
		require.ErrorContains(t, err, "cannot use cluster name")
	}
	f("a.b")
	f("*")
	f(">")
	f("a b")
	f("é")
}

func TestConnectHonoursContext(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Connect(ctx, Options{URL: srv.URL()})
	require.ErrorIs(t, err, context.Canceled)
}

// Workers and gateways find each other again after the server was away.
func TestServerRestart(t *testing.T) {
	srv, err := StartServer(ServerOptions{})
	require.NoError(t, err)
	address := srv.nats.Addr().String()
	work, gate := connect(t, srv, steadyBeat), connect(t, srv, steadyBeat)
	s := serve(t, work, worker("d1", echo))
	v := watch(t, gate)
	waitFor(t, v, "d1")

	srv.Shutdown()
	waitFor(t, v)
	_, err = collect(t, gate, "d1", request(1))
	require.Equal(t, terse.CodeNoWorker, terse.CodeOf(err))
	require.ErrorContains(t, err, "not connected to NATS at")
	require.Error(t, gate.Connected())

	startServer(t, ServerOptions{Listen: address})
	waitFor(t, v, "d1")
	tokens, err := collect(t, gate, "d1", request(4, 5))
	require.NoError(t, err)
	require.Equal(t, []terse.Token{4, 5}, tokens)
	require.NoError(t, s.stop())
}

// A nats-server as it comes, with its own limits and no JetStream, is enough.
func TestPlainExternalServer(t *testing.T) {
	plain, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	require.NoError(t, err)
	plain.Start()
	t.Cleanup(func() {
		plain.Shutdown()
		plain.WaitForShutdown()
	})
	require.True(t, plain.ReadyForConnections(patience))
	require.False(t, plain.JetStreamEnabled())
	outside := &Server{nats: plain}

	work, gate := connect(t, outside, 0), connect(t, outside, 0)
	require.Equal(t, 1<<20, gate.MaxPayload())
	serve(t, work, worker("d1", func(_ context.Context, job Job, emit func(terse.Output) error) error {
		scores := make([]terse.Scored, len(job.Request.Prompt))
		for i := range scores {
			scores[i] = terse.Scored{Logprob: terse.Logprob{Token: job.Request.Prompt[i]}, Top: make([]terse.Logprob, 5)}
		}
		return emit(terse.Output{Prompt: scores, Finish: terse.FinishLength})
	}))
	job := request(ascending(128 << 10)...)
	var scored []terse.Token
	err = gate.Submit(testContext(t), "d1", job, func(out terse.Output) error {
		for _, s := range out.Prompt {
			scored = append(scored, s.Token)
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, job.Request.Prompt, scored)

	_, err = collect(t, gate, "d1", request(make([]terse.Token, 1<<20)...))
	require.Equal(t, terse.CodeInvalid, terse.CodeOf(err))
	require.ErrorContains(t, err, "takes 1048576")
}
