package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Options say which NATS server and which cluster on it to join.
type Options struct {
	URL    string  // nats://[user:password@]host:port, several split by commas
	Server *Server // an embedded server, reached in process; overrides URL

	Cluster string // subject prefix; "" = "terse"
	Name    string // of this process, shown in the NATS server's monitoring
	Logger  *slog.Logger
	Beat    time.Duration // 0 = DefaultBeat; the same in the whole cluster
}

// Conn is one process's place in the cluster. Its methods may be called from
// several goroutines.
type Conn struct {
	nc      *nats.Conn
	cluster string
	where   string // the server, for messages; without secrets
	log     *slog.Logger
	beat    time.Duration
	backlog int // bytes that may wait for a slow emit
	closed  chan struct{}
	strange nag
}

const (
	connectTimeout = 2 * time.Second
	reconnectWait  = 250 * time.Millisecond
	flushTimeout   = 10 * time.Second
	pingInterval   = 5 * time.Second // finds half-open links; the default is 2 minutes
)

// Connect joins the cluster. A server that is not there is an error after two
// seconds at most; one that goes away later is looked for again for ever.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	if o.Cluster == "" {
		o.Cluster = "terse"
	}
	if err := checkName("cluster", o.Cluster); err != nil {
		return nil, err
	}
	if o.Beat <= 0 {
		o.Beat = DefaultBeat
	}
	c := &Conn{cluster: o.Cluster, where: redact(o.URL), log: loggerOr(o.Logger), beat: o.Beat, backlog: maxBacklog, closed: make(chan struct{})}
	options := c.natsOptions(o.Name, dialTimeout(ctx))
	if o.Server != nil {
		c.where = "the embedded server"
		options = append(options, nats.InProcessServer(o.Server.nats))
		if o.Server.token != "" {
			options = append(options, nats.Token(o.Server.token))
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot connect to NATS at %s: %w", c.where, err)
	}
	nc, err := nats.Connect(o.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to NATS at %s: %w: %s", c.where, err, connectHint(err))
	}
	c.nc = nc
	return c, nil
}

func (c *Conn) natsOptions(name string, timeout time.Duration) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		nats.Timeout(timeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait, reconnectWait),
		nats.PingInterval(pingInterval),
		nats.IgnoreAuthErrorAbort(), // a server that restarts may deny for a moment
		nats.CustomInboxPrefix(c.streamPrefix()),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil is our own Close
				c.log.Warn("lost NATS, reconnecting", "server", c.where, "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			c.log.Info("NATS is back", "server", c.where)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			c.log.Warn("NATS reports an error", "server", c.where, "subject", subject, "error", err)
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	}
}

// dialTimeout is connectTimeout or what ctx leaves of it.
func dialTimeout(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(min(time.Until(deadline), connectTimeout), time.Millisecond)
	}
	return connectTimeout
}

func connectHint(err error) string {
	if errors.Is(err, nats.ErrAuthorization) {
		return "put user:password@ or token@ before the host in the URL"
	}
	return "start a nats-server there or correct the URL"
}

// redact takes passwords and tokens out of a list of URLs.
func redact(urls string) string {
	if urls == "" {
		return nats.DefaultURL
	}
	list := strings.Split(urls, ",")
	for i, text := range list {
		u, err := url.Parse(strings.TrimSpace(text))
		if err != nil || u.User == nil {
			if at := strings.LastIndexByte(text, '@'); at >= 0 {
				list[i] = text[at+1:]
			}
			continue
		}
		u.User = nil
		list[i] = u.String()
	}
	return strings.Join(list, ",")
}

// Close leaves NATS at once: no goodbye, no drain. A worker ends by the
// context of [Conn.Serve] first.
func (c *Conn) Close() {
	c.nc.Close()
	<-c.closed
}

// Connected is nil while NATS is reached, else an error that names the server.
func (c *Conn) Connected() error {
	if c.nc.IsConnected() {
		return nil
	}
	return fmt.Errorf("not connected to NATS at %s", c.where)
}

// MaxPayload is the largest message that the NATS server takes, in bytes.
func (c *Conn) MaxPayload() int { return int(c.nc.MaxPayload()) }

func (c *Conn) membersSubject() string { return c.cluster + ".members" }
func (c *Conn) whoSubject() string     { return c.cluster + ".who" }
func (c *Conn) streamPrefix() string   { return c.cluster + ".stream" }

func (c *Conn) workerSubject(id, what string) string {
	return c.cluster + ".worker." + id + "." + what
}

// The last tokens of a worker's subjects.
const (
	subjectJob  = "job"
	subjectCtl  = "ctl"
	subjectPing = "ping"
)

func (c *Conn) tick() time.Duration { return max(c.beat/ticksPerBeat, time.Millisecond) }

// ignore is for payloads that nobody waits for: they are not ours to answer,
// but whoever runs the cluster must hear of them.
func (c *Conn) ignore(m *nats.Msg, err error) {
	if n := c.strange.count(time.Now()); n > 0 {
		c.log.Warn("ignored messages on the cluster's subjects", "count", n, "subject", m.Subject, "error", err)
	}
}

// nag lets one log line through in ten seconds, with the count since the last,
// so that a flood of garbage does not become a flood of log lines.
type nag struct {
	mu     sync.Mutex
	last   time.Time
	silent int
}

func (n *nag) count(now time.Time) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent++
	if now.Sub(n.last) < 10*time.Second {
		return 0
	}
	count := n.silent
	n.last, n.silent = now, 0
	return count
}
