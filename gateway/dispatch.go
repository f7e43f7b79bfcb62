package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/route"
)

// DefaultAttempts is how many workers in a row may fail a request.
const DefaultAttempts = 3

// ClusterOptions tune a [Cluster]. The zero value is the default.
type ClusterOptions struct {
	Attempts   int           // that fail one after the other without a token; 0 = DefaultAttempts
	LocalBelow int           // see route.Ask
	TTFT       time.Duration // likewise
	Model      Model         // what this gateway turns text into tokens for; the zero value takes every worker
	Logger     *slog.Logger
}

// Cluster is the [Dispatcher] over real workers. It asks route where a request
// goes and cluster to run it there; what fails for a reason that another worker
// may not have is tried again without the culprit.
type Cluster struct {
	jobs    jobRunner
	members memberList
	opts    ClusterOptions
	log     *slog.Logger
	ledger  ledger
	strange strangers

	prefixes prefixes
	outputs  mean // tokens that an answer has
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
	return &Cluster{
		jobs: jobs, members: members, opts: opts, log: log,
		ledger: ledger{accounts: map[string]account{}}, prefixes: newPrefixes(),
	}
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
		_, err = route.Decide(c.asCandidates(members, nil), route.Ask{PromptTokens: 1})
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

// Generate runs one request; see [Dispatcher]. Where a worker is lost another
// one goes on behind the tokens that the client has.
func (c *Cluster) Generate(ctx context.Context, req *terse.Request, emit func(terse.Output) error) error {
	arrival := time.Now()
	answer := &delivery{req: req, emit: emit}
	var exclude []string
	var failure, broken error // the last one, and the last that broke off an answer
	for attempt, inVain := 0, 0; inVain < c.opts.Attempts; attempt++ {
		if finish, ok := answer.ended(); ok {
			return answer.conclude(finish)
		}
		rest := answer.rest()
		chain := c.prefixes.chain(rest.Prompt)
		d, members, err := c.decide(rest, chain, exclude)
		if err != nil && failure != nil {
			break // nobody is left to try: what went wrong says more than that
		}
		if err != nil {
			return err
		}
		answer.resent = len(answer.tokens)
		t := &try{cluster: c, answer: answer, req: rest, chain: chain, members: members, decision: d, attempt: attempt}
		failure = t.run(ctx, newJob(rest, d, members, attempt, arrival))
		if failure == nil || !retryable(failure) {
			return failure
		}
		culprit := t.culprit(failure)
		c.log.Warn("a worker did not finish a request", "request", req.ID, "attempt", attempt+1, "without", culprit, "tokens", len(answer.tokens), "error", failure)
		exclude = append(exclude, culprit)
		if inVain++; t.moved {
			inVain, broken = 0, failure
		}
	}
	if broken != nil {
		return broken
	}
	return failure
}

// decide returns the members that it decided on, since the next look at the
// view may miss one.
func (c *Cluster) decide(req *terse.Request, chain []uint64, exclude []string) (route.Decision, []cluster.Member, error) {
	members, err := c.fitting()
	if err != nil {
		return route.Decision{}, nil, err
	}
	output := req.MaxTokens
	if usual := int(c.outputs.value()); usual > 0 {
		output = min(output, usual)
	}
	d, err := route.Decide(c.asCandidates(members, chain), route.Ask{
		PromptTokens: len(req.Prompt),
		MaxTokens:    req.MaxTokens,
		Output:       output,
		ScorePrompt:  req.Sampling.PromptLogprobs >= 0,
		Resumed:      req.Resumed > 0,
		LocalBelow:   c.opts.LocalBelow,
		Exclude:      exclude,
		Prefer:       replicasOf(req, members),
		TTFT:         c.opts.TTFT,
	})
	return d, members, err
}

// replicasOf are the workers that hold a replica of a request that is to be gone on
// with.
func replicasOf(req *terse.Request, members []cluster.Member) []string {
	var ids []string
	for _, m := range members {
		if req.Resumed > 0 && slices.Contains(m.Replicas, req.ID) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func newJob(req *terse.Request, d route.Decision, members []cluster.Member, attempt int, arrival time.Time) cluster.Job {
	job := cluster.Job{Request: *req, Attempt: attempt, Arrival: arrival, Route: d.Reason, Apart: d.Apart, Planes: d.Planes}
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
