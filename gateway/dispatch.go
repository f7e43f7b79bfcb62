package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/route"
)

// DefaultAttempts is how many workers a request is tried on.
const DefaultAttempts = 3

// ClusterOptions tune a [Cluster]. The zero value is the default.
type ClusterOptions struct {
	Attempts   int   // 0 = DefaultAttempts
	LocalBelow int   // see route.Ask
	Model      Model // what this gateway turns text into tokens for; the zero value takes every worker
	Logger     *slog.Logger
}

// Cluster is the [Dispatcher] over real workers. It asks route where a request
// goes and cluster to run it there; what fails before its first output, for a
// reason that another worker may not have, is tried again without the culprit.
type Cluster struct {
	jobs    jobRunner
	members memberList
	opts    ClusterOptions
	log     *slog.Logger
	ledger  ledger
	strange strangers
}

// jobRunner is what a Cluster needs of a cluster.Conn.
type jobRunner interface {
	Submit(ctx context.Context, workerID string, job cluster.Job, emit func(terse.Output) error) error
	Connected() error
}

// memberList is what a Cluster needs of a cluster.View.
type memberList interface {
	Members() []cluster.Member
}

// NewCluster makes a dispatcher over a connection and its view of the members;
// both stay the caller's to close.
func NewCluster(conn *cluster.Conn, view *cluster.View, opts ClusterOptions) *Cluster {
	return newCluster(conn, view, opts)
}

func newCluster(jobs jobRunner, members memberList, opts ClusterOptions) *Cluster {
	if opts.Attempts <= 0 {
		opts.Attempts = DefaultAttempts
	}
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Cluster{jobs: jobs, members: members, opts: opts, log: log, ledger: ledger{accounts: map[string]account{}}}
}

// Members are the workers known now, by ID.
func (c *Cluster) Members() []cluster.Member { return c.members.Members() }

// Ready is nil when some worker could take a request now.
func (c *Cluster) Ready() error {
	if err := c.jobs.Connected(); err != nil {
		return &terse.Error{Code: terse.CodeNoWorker, Message: err.Error()}
	}
	members, err := c.fitting()
	if err == nil {
		_, err = route.Decide(c.asCandidates(members), route.Ask{PromptTokens: 1})
	}
	return err
}

// Health is nil, or says which worker's KV transfers are wedged: it answers, and
// what it should move does not move.
func (c *Cluster) Health() error {
	for _, m := range c.members.Members() {
		if m.Wedged != "" {
			return &terse.Error{Code: terse.CodeTransfer, Message: fmt.Sprintf("worker %s is wedged: %s", m.ID, m.Wedged)}
		}
	}
	return nil
}

// Generate runs one request; see [Dispatcher].
func (c *Cluster) Generate(ctx context.Context, req *terse.Request, emit func(terse.Output) error) error {
	arrival := time.Now()
	var exclude []string
	var failure error
	for attempt := range c.opts.Attempts {
		d, members, err := c.decide(req, exclude)
		if err != nil && failure != nil {
			return failure // nobody is left to try: what went wrong says more than that
		}
		if err != nil {
			return err
		}
		t := &try{cluster: c, req: req, decision: d, attempt: attempt, emit: emit}
		failure = t.run(ctx, newJob(req, d, members, attempt, arrival))
		if failure == nil || t.emitted || !retryable(failure) {
			return failure
		}
		culprit := t.culprit(failure)
		c.log.Warn("request failed before its first output", "request", req.ID, "attempt", attempt+1, "without", culprit, "error", failure)
		exclude = append(exclude, culprit)
	}
	return failure
}

// decide returns the members that it decided on, since the next look at the
// view may miss one.
func (c *Cluster) decide(req *terse.Request, exclude []string) (route.Decision, []cluster.Member, error) {
	members, err := c.fitting()
	if err != nil {
		return route.Decision{}, nil, err
	}
	d, err := route.Decide(c.asCandidates(members), route.Ask{
		PromptTokens: len(req.Prompt),
		MaxTokens:    req.MaxTokens,
		ScorePrompt:  req.Sampling.PromptLogprobs >= 0,
		LocalBelow:   c.opts.LocalBelow,
		Exclude:      exclude,
	})
	return d, members, err
}

func newJob(req *terse.Request, d route.Decision, members []cluster.Member, attempt int, arrival time.Time) cluster.Job {
	job := cluster.Job{Request: *req, Attempt: attempt, Arrival: arrival, Route: d.Reason}
	target := func(id string) cluster.Target {
		i := slices.IndexFunc(members, func(m cluster.Member) bool { return m.ID == id })
		return cluster.Target{WorkerID: id, DataAddr: members[i].DataAddr}
	}
	if d.Split {
		first := target(d.Prefill)
		job.Prefill = &first
		for _, id := range d.Others {
			job.Others = append(job.Others, target(id))
		}
	}
	return job
}

func retryable(err error) bool {
	switch terse.CodeOf(err) {
	case terse.CodeWorkerLost, terse.CodeTransfer, terse.CodeNoWorker, terse.CodeOverloaded:
		return true
	}
	return false
}

// try is one attempt of a request.
type try struct {
	cluster  *Cluster
	req      *terse.Request
	decision route.Decision
	attempt  int
	emit     func(terse.Output) error
	emitted  bool // from here on a second attempt would repeat what the client has
}

func (t *try) run(ctx context.Context, job cluster.Job) error {
	entry := t.cluster.ledger.open(t.decision, len(t.req.Prompt))
	defer entry.close()
	return t.cluster.jobs.Submit(ctx, t.decision.Decode, job, func(out terse.Output) error {
		entry.computed()
		t.emitted = true
		return t.emit(t.complete(out))
	})
}

// complete adds to an output's timing what only the dispatcher knows.
func (t *try) complete(out terse.Output) terse.Output {
	if out.Timing == nil {
		return out
	}
	timing := *out.Timing
	timing.Retries += t.attempt
	if timing.Route == "" {
		timing.Route = t.decision.Reason
	}
	if timing.DecodeWorker == "" {
		timing.DecodeWorker = t.decision.Decode
	}
	if timing.PrefillWorker == "" {
		timing.PrefillWorker = t.decision.Prefill
	}
	out.Timing = &timing
	return out
}

// culprit is the worker to leave out of the next attempt. A split request that
// failed by its prefill worker, which the error then names, or between the
// two, can still run on the decode worker.
func (t *try) culprit(err error) string {
	if t.decision.Split && (terse.CodeOf(err) == terse.CodeTransfer || names(err, t.decision.Prefill)) {
		return t.decision.Prefill
	}
	return t.decision.Decode
}

// names reports whether an error speaks of a worker: its ID between characters
// that no ID has.
func names(err error, id string) bool {
	inID := func(r rune) bool {
		return r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	words := strings.FieldsFunc(err.Error(), func(r rune) bool { return !inID(r) })
	return slices.Contains(words, id)
}
