package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/terse-llm/terse"
)

// Handler runs one job. It calls emit for each output in order, ends with one
// that has Finish set, or returns an error instead, which reaches the submitter
// with its [terse.Code]. When ctx ends it returns soon; the cause of ctx says
// why (cancelled, submitter gone, shutdown). An output may be of any size.
type Handler func(ctx context.Context, job Job, emit func(terse.Output) error) error

// Worker is what [Conn.Serve] needs to know.
type Worker struct {
	// Record is called for each beat and each question, from several
	// goroutines. ID and Role stay what the first call returned; Started and
	// Epoch are filled in by Serve.
	Record func() Member
	// Handle runs jobs; nil refuses them, as prefill workers do, whose work
	// comes over the data port.
	Handle  Handler
	MaxJobs int           // at once, refused beyond with CodeOverloaded; 0 = DefaultMaxJobs
	Drain   time.Duration // how long running jobs may go on when ctx ends
}

// DefaultMaxJobs bounds the jobs of one worker. The engine queues and refuses
// by its own measure long before; this keeps a flood out of memory.
const DefaultMaxJobs = 1024

var errShutdown = &terse.Error{Code: terse.CodeWorkerLost, Message: "the worker shuts down"}

// serving is one worker at work.
type serving struct {
	conn   *Conn
	worker Worker
	self   Member // the constant part

	mu      sync.Mutex
	runs    map[string]*run // by stream subject
	closing bool
	handled sync.WaitGroup

	voice sync.Mutex // one announcement at a time, none after the goodbye
	gone  bool
}

// Serve makes this process the worker that w.Record describes: it takes jobs,
// then joins, and returns after ctx has ended, it has said goodbye and the
// handlers have returned. An ID that another worker holds is an error; so is
// the connection's end.
func (c *Conn) Serve(ctx context.Context, w Worker) (err error) {
	s, err := c.newServing(w)
	if err != nil {
		return err
	}
	if err := c.claim(ctx, s.self.ID); err != nil {
		return err
	}
	jobs, err := c.nc.Subscribe(c.workerSubject(s.self.ID, "*"), s.hear)
	if err != nil {
		return fmt.Errorf("cannot serve as worker %q: %w", s.self.ID, err)
	}
	// Last of all: whoever sends a job to a worker that leaves gets an answer.
	defer func() { err = errors.Join(err, c.retire(jobs)) }()
	who, err := c.nc.Subscribe(c.whoSubject(), func(*nats.Msg) { s.announce(false) })
	if err != nil {
		return fmt.Errorf("cannot serve as worker %q: %w", s.self.ID, err)
	}
	defer func() { err = errors.Join(err, c.retire(who)) }()
	if err := c.flush(ctx); err != nil { // jobs may come as soon as others know us
		return fmt.Errorf("cannot serve as worker %q: %w", s.self.ID, err)
	}
	s.announce(false)
	err = s.live(ctx)
	s.cancelAll()
	s.handled.Wait()
	return err
}

func (c *Conn) newServing(w Worker) (*serving, error) {
	if w.MaxJobs <= 0 {
		w.MaxJobs = DefaultMaxJobs
	}
	self := w.Record()
	self.Started = time.Now()
	self.Epoch = uint64(self.Started.UnixNano())
	if _, err := marshalRecord(self, false); err != nil {
		return nil, fmt.Errorf("cannot serve as worker %q: %w", self.ID, err)
	}
	return &serving{conn: c, worker: w, self: self, runs: map[string]*run{}}, nil
}

// claim asks whether anybody answers to the ID. Silence counts as free: it is
// a connection that NATS has not yet given up.
func (c *Conn) claim(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, c.beat)
	defer cancel()
	_, err := c.nc.RequestWithContext(ctx, c.workerSubject(id, subjectPing), nil)
	switch {
	case err == nil:
		return fmt.Errorf("cannot serve as worker %q: another worker of cluster %q has that name; choose another", id, c.cluster)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
		return nil
	}
	return fmt.Errorf("cannot serve as worker %q: no answer from NATS at %s: %w", id, c.where, err)
}

// live beats until ctx has ended and the jobs are drained.
func (s *serving) live(ctx context.Context) error {
	ticker := time.NewTicker(s.conn.tick())
	defer ticker.Stop()
	if err := s.beatUntil(ticker.C, ctx.Done(), nil); err != nil {
		return err
	}
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.announce(true)
	idle := make(chan struct{})
	go func() {
		s.handled.Wait()
		close(idle)
	}()
	drain := time.NewTimer(s.worker.Drain)
	defer drain.Stop()
	return s.beatUntil(ticker.C, idle, drain.C)
}

// beatUntil keeps the leases until one of the two channels speaks.
func (s *serving) beatUntil(ticks <-chan time.Time, done <-chan struct{}, timeout <-chan time.Time) error {
	for n := 1; ; n++ {
		select {
		case <-done:
			return nil
		case <-timeout:
			return nil
		case <-s.conn.closed:
			return fmt.Errorf("cannot serve as worker %q any longer: the connection to NATS at %s is closed", s.self.ID, s.conn.where)
		case <-ticks:
			s.tick(n%ticksPerBeat == 0)
		}
	}
}

func (s *serving) tick(beat bool) {
	s.mu.Lock()
	runs := make([]*run, 0, len(s.runs))
	for _, r := range s.runs {
		r.silent++
		if r.silent >= leaseTicks {
			r.cancel(&terse.Error{Code: terse.CodeWorkerLost, Message: "the gateway that submitted the job is gone"})
		}
		runs = append(runs, r)
	}
	s.mu.Unlock()
	if !beat {
		return
	}
	s.announce(false)
	for _, r := range runs {
		r.alive()
	}
}

// announce publishes the worker's record as it is now, or its goodbye.
func (s *serving) announce(gone bool) {
	s.voice.Lock()
	defer s.voice.Unlock()
	if s.gone {
		return
	}
	s.gone = gone
	m := s.worker.Record()
	m.ID, m.Role, m.Started, m.Epoch = s.self.ID, s.self.Role, s.self.Started, s.self.Epoch
	data, err := marshalRecord(m, gone)
	if err == nil {
		err = s.conn.nc.Publish(s.conn.membersSubject(), data)
	}
	if err != nil {
		s.conn.log.Warn("cannot announce the worker", "id", m.ID, "error", err)
	}
}

// hear gets all that is sent to the worker, in one goroutine, so that a cancel
// never overtakes its job.
func (s *serving) hear(m *nats.Msg) {
	what := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	if what == subjectPing {
		if err := m.Respond(nil); err != nil {
			s.conn.ignore(m, err)
		}
		return
	}
	if !strings.HasPrefix(m.Reply, s.conn.streamPrefix()+".") {
		s.conn.ignore(m, fmt.Errorf("reply subject %q is no job stream", m.Reply))
		return
	}
	switch what {
	case subjectJob:
		s.accept(m)
	case subjectCtl:
		s.control(m)
	default:
		s.conn.ignore(m, fmt.Errorf("subject %q means nothing to a worker", what))
	}
}

func (s *serving) accept(m *nats.Msg) {
	job, err := unmarshalJob(m.Data, time.Now())
	if err != nil {
		s.refuse(m.Reply, asInvalid(err))
		return
	}
	r, err := s.admit(m.Reply)
	if err != nil {
		s.refuse(m.Reply, err)
		return
	}
	go func() {
		defer s.handled.Done()
		defer r.cancel(nil)
		// The last output goes out before the job is forgotten: a keepalive in
		// between must not be answered with "unknown".
		r.finish(s.worker.Handle(r.ctx, job, r.emit))
		s.forget(r)
	}()
}

// asInvalid gives an error without a code the one for a bad request.
func asInvalid(err error) error {
	var typed *terse.Error
	if errors.As(err, &typed) {
		return err
	}
	return &terse.Error{Code: terse.CodeInvalid, Message: err.Error()}
}

func (s *serving) admit(stream string) (*run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.worker.Handle == nil:
		return nil, &terse.Error{Code: terse.CodeNoWorker, Message: fmt.Sprintf("worker %q is a %s worker and takes no requests", s.self.ID, s.self.Role)}
	case s.closing:
		return nil, &terse.Error{Code: terse.CodeNoWorker, Message: fmt.Sprintf("worker %q shuts down", s.self.ID)}
	case s.runs[stream] != nil:
		return nil, &terse.Error{Code: terse.CodeInvalid, Message: "the job stream is in use"}
	case len(s.runs) >= s.worker.MaxJobs:
		return nil, &terse.Error{Code: terse.CodeOverloaded, Message: fmt.Sprintf("worker %q has %d jobs, the most it takes: try again later", s.self.ID, len(s.runs))}
	}
	r := &run{conn: s.conn, worker: s.self.ID, stream: stream}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	s.runs[stream] = r
	s.handled.Add(1)
	return r, nil
}

func (s *serving) forget(r *run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.runs, r.stream)
}

// refuse answers a job that is not run.
func (s *serving) refuse(stream string, err error) {
	r := &run{conn: s.conn, worker: s.self.ID, stream: stream, ctx: context.Background()}
	r.finish(err)
}

func (s *serving) control(m *nats.Msg) {
	kind, _, err := header(m.Data)
	if err != nil {
		s.conn.ignore(m, err)
		return
	}
	s.mu.Lock()
	r := s.runs[m.Reply]
	if r != nil {
		r.silent = 0
	}
	s.mu.Unlock()
	switch {
	case kind == kindCancel && r != nil:
		r.cancel(&terse.Error{Code: terse.CodeCancelled, Message: "the request was cancelled"})
	case kind == kindKeep && r == nil:
		if err := s.conn.nc.Publish(m.Reply, []byte{protocol, kindUnknown}); err != nil {
			s.conn.ignore(m, err)
		}
	case kind != kindCancel && kind != kindKeep:
		s.conn.ignore(m, fmt.Errorf("message kind %d means nothing to a worker", kind))
	}
}

// cancelAll ends what drain did not wait for.
func (s *serving) cancelAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for _, r := range s.runs {
		r.cancel(errShutdown)
	}
}

// retire ends a subscription after what was sent to it has been handled, and
// sees the last words of the worker off. A message that NATS had on the way
// would otherwise vanish without an answer.
func (c *Conn) retire(sub *nats.Subscription) error {
	if c.Connected() != nil {
		return nil // the subscription ended with the connection
	}
	drained := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(drained) })
	if err := sub.Drain(); err != nil {
		return fmt.Errorf("cannot leave subject %s: %w", sub.Subject, err)
	}
	timeout := time.NewTimer(flushTimeout)
	defer timeout.Stop()
	select {
	case <-drained:
		return c.flush(context.Background())
	case <-c.closed:
		return nil
	case <-timeout.C:
		return fmt.Errorf("cannot leave subject %s: no answer from NATS at %s", sub.Subject, c.where)
	}
}
