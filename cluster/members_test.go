package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
)

// A gateway that comes later learns of everybody by asking: with a beat of an
// hour no record would come by itself.
func TestFreshViewKnowsEverybody(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	const never = time.Hour
	work := connect(t, srv, never)
	serve(t, work, worker("d1", echo))
	serve(t, work, worker("d2", echo))
	v := watch(t, connect(t, srv, never))
	waitFor(t, v, "d1", "d2")
	m := v.Members()[0]
	want := decoder("d1")
	want.Started, want.Epoch = m.Started, m.Epoch
	require.Equal(t, want, m)
	require.WithinDuration(t, time.Now(), m.Started, time.Minute)
	require.NotZero(t, m.Epoch)
}

func TestGoodbyeIsHeardAtOnce(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	const never = time.Hour // no lease ends: only the goodbye can take the member away
	s := serve(t, connect(t, srv, never), worker("d1", echo))
	gate := connect(t, srv, never)
	v := watch(t, gate)
	waitFor(t, v, "d1")
	require.NoError(t, s.stop())
	waitFor(t, v)
	_, err := collect(t, gate, "d1", request(1))
	require.Equal(t, terse.CodeNoWorker, terse.CodeOf(err))
}

func TestLeaseEndsWithoutGoodbye(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	work := connect(t, srv, shortBeat)
	s := serve(t, work, worker("d1", echo))
	v := watch(t, connect(t, srv, shortBeat))
	waitFor(t, v, "d1")
	work.Close()
	require.ErrorContains(t, s.stop(), "is closed")
	waitFor(t, v)
}

func TestRecordsAreRefreshed(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	var running atomic.Int64
	w := worker("d1", echo)
	w.Record = func() Member {
		m := decoder("d1")
		m.Running = int(running.Load())
		return m
	}
	serve(t, connect(t, srv, shortBeat), w)
	v := watch(t, connect(t, srv, shortBeat))
	waitFor(t, v, "d1")
	running.Store(7)
	err := v.Wait(testContext(t), func(m []Member) bool { return len(m) == 1 && m[0].Running == 7 })
	require.NoError(t, err)
}

func TestNamesAreUnique(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	const never = time.Hour // silence for a beat would count as nobody
	first := connect(t, srv, never)
	s := serve(t, first, worker("d1", echo))
	second := connect(t, srv, never)
	err := second.Serve(testContext(t), worker("d1", echo))
	require.ErrorContains(t, err, `another worker of cluster "terse" has that name`)
	require.NoError(t, s.stop())
	serve(t, second, worker("d1", echo)) // free again
}

func TestClustersAreApart(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	serve(t, connect(t, srv, 0), worker("d1", echo))
	other, err := Connect(testContext(t), Options{URL: srv.URL(), Cluster: "other"})
	require.NoError(t, err)
	t.Cleanup(other.Close)
	serve(t, other, worker("x1", echo))
	waitFor(t, watch(t, other), "x1")
	_, err = collect(t, other, "d1", request(1))
	require.Equal(t, terse.CodeNoWorker, terse.CodeOf(err))
}

func TestServeRefusesBadRecords(t *testing.T) {
	c := connect(t, startServer(t, ServerOptions{}), 0)
	f := func(change func(*Member), want string) {
		t.Helper()
		w := worker("d1", echo)
		w.Record = func() Member {
			m := decoder("d1")
			change(&m)
			return m
		}
		require.ErrorContains(t, c.Serve(testContext(t), w), want)
	}
	f(func(m *Member) { m.ID = "a.b" }, "'.' is not a letter")
	f(func(m *Member) { m.ID = "" }, "1 to 64 characters")
	f(func(m *Member) { m.Role = "cook" }, `"cook"`)
	f(func(m *Member) { m.Format = string(make([]byte, 1000)) }, "1000 bytes")
	f(func(m *Member) { m.Running = -1 }, "negative")
	f(func(m *Member) { m.PrefillRate = -1 }, "prefill rate")
	f(func(m *Member) { m.KVPerToken = -1 }, "-1 a token")
	f(func(m *Member) { m.Links = map[string]float64{"p 1": 1} }, "p 1")
	f(func(m *Member) { m.Links = map[string]float64{"p1": 0} }, "0 bytes/s")
	f(func(m *Member) {
		m.Links = map[string]float64{}
		for i := range MaxLinks + 1 {
			m.Links[fmt.Sprint("p", i)] = 1
		}
	}, "65 links")
}

func TestWaitEnds(t *testing.T) {
	c := connect(t, startServer(t, ServerOptions{}), 0)
	v, err := c.Watch(testContext(t))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	never := func([]Member) bool { return false }
	require.ErrorIs(t, v.Wait(ctx, never), context.Canceled)
	v.Close()
	require.ErrorContains(t, v.Wait(testContext(t), never), "closed")
}
