package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// View is a live list of the cluster's members.
type View struct {
	conn *Conn
	said slog.Level // at which comings and goings are logged
	sub  *nats.Subscription
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	roster  roster
	changed chan struct{} // closed and replaced at every record and loss
}

// Watch begins to follow the members, and logs who comes and goes. Those that are
// there answer within a round trip; use [View.Wait] to wait for the ones that matter.
func (c *Conn) Watch(ctx context.Context) (*View, error) { return c.watch(ctx, slog.LevelInfo) }

// WatchQuietly is Watch for those in a process that are not the ones to log it.
func (c *Conn) WatchQuietly(ctx context.Context) (*View, error) {
	return c.watch(ctx, slog.LevelDebug)
}

func (c *Conn) watch(ctx context.Context, said slog.Level) (*View, error) {
	v := &View{
		conn: c, said: said,
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		roster:  roster{entries: map[string]*entry{}},
		changed: make(chan struct{}),
	}
	sub, err := c.nc.Subscribe(c.membersSubject(), v.hear)
	if err != nil {
		return nil, fmt.Errorf("cannot watch the members of cluster %q: %w", c.cluster, err)
	}
	v.sub = sub
	go v.expire()
	if err := c.flush(ctx); err != nil {
		v.Close()
		return nil, fmt.Errorf("cannot watch the members of cluster %q: %w", c.cluster, err)
	}
	if err := c.nc.Publish(c.whoSubject(), nil); err != nil {
		v.Close()
		return nil, fmt.Errorf("cannot ask for the members of cluster %q: %w", c.cluster, err)
	}
	return v, nil
}

// flush returns when the server has seen all that was sent before.
func (c *Conn) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := c.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("no answer from NATS at %s: %w", c.where, err)
	}
	return nil
}

func (v *View) hear(m *nats.Msg) {
	rec, err := unmarshalRecord(m.Data)
	if err != nil {
		v.conn.ignore(m, err)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.note(v.roster.apply(rec))
}

func (v *View) expire() {
	defer close(v.done)
	ticker := time.NewTicker(v.conn.tick())
	defer ticker.Stop()
	for {
		select {
		case <-v.stop:
			return
		case <-ticker.C:
			v.mu.Lock()
			for _, lost := range v.roster.tick() {
				v.note(lost)
			}
			v.mu.Unlock()
		}
	}
}

// note logs a change and wakes those who wait. v.mu is held.
func (v *View) note(ch change) {
	if ch.what != "" {
		v.conn.log.Log(context.Background(), v.said, "member "+ch.what, "id", ch.member.ID, "role", ch.member.Role, "data", ch.member.DataAddr)
	}
	close(v.changed)
	v.changed = make(chan struct{})
}

// Members are those whose lease holds, by ID.
func (v *View) Members() []Member {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.roster.list()
}

// Wait returns when enough says yes to the members, or with ctx's error.
func (v *View) Wait(ctx context.Context, enough func([]Member) bool) error {
	for {
		v.mu.Lock()
		members, changed := v.roster.list(), v.changed
		v.mu.Unlock()
		if enough(members) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("cannot wait longer for members of cluster %q, %d are there: %w", v.conn.cluster, len(members), context.Cause(ctx))
		case <-v.done:
			return fmt.Errorf("cannot wait for members of cluster %q: the view was closed", v.conn.cluster)
		}
	}
}

// Close ends the view. Call it once.
func (v *View) Close() {
	close(v.stop)
	<-v.done
	// An error means that the connection is closed, and the subscription with it.
	_ = v.sub.Unsubscribe()
}
