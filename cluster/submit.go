package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/terse-llm/terse"
)

// maxBacklog bounds what waits for a slow emit of one job, in bytes. It holds the whole
// stream of any usual request, prompt scores of 128K tokens included.
const maxBacklog = 64 << 20

// submission is one job at its submitter.
type submission struct {
	conn   *Conn
	worker string
	id     string // of the request, for messages
	stream string
	sub    *nats.Subscription
	msgs   chan *nats.Msg
	done   chan struct{}

	heard  bool   // anything from the worker
	next   uint64 // the number that the next output must have
	silent int    // ticks since the worker's last word
}

// Submit runs a job on a worker and calls emit for each output in order, in
// the calling goroutine. It returns nil after the output with Finish set, else
// an error with a code: CodeNoWorker at once when nobody has that ID,
// CodeWorkerLost when the worker or the stream broke, CodeCancelled or
// CodeDeadline (wrapping ctx's error) when ctx ended, CodeInvalid when the job
// does not fit a message, or what the worker reported. However it ends, the
// worker stops computing.
func (c *Conn) Submit(ctx context.Context, workerID string, job Job, emit func(terse.Output) error) error {
	if err := ctx.Err(); err != nil {
		return endOf(job.Request.ID, err)
	}
	data, err := c.packJob(workerID, job)
	if err != nil {
		return err
	}
	s := &submission{conn: c, worker: workerID, id: job.Request.ID, stream: c.nc.NewInbox(), msgs: make(chan *nats.Msg), done: make(chan struct{})}
	s.sub, err = c.nc.Subscribe(s.stream, s.hear)
	if err != nil {
		return fmt.Errorf("cannot listen for the outputs of request %s: %w", s.id, err)
	}
	// Errors of Unsubscribe mean that the connection is closed.
	defer func() { _ = s.sub.Unsubscribe() }()
	defer close(s.done)
	if err := s.sub.SetPendingLimits(-1, c.backlog); err != nil {
		return fmt.Errorf("cannot listen for the outputs of request %s: %w", s.id, err)
	}
	if err := c.nc.PublishRequest(c.workerSubject(workerID, subjectJob), s.stream, data); err != nil {
		return fmt.Errorf("cannot send request %s to worker %q: %w", s.id, workerID, err)
	}
	go s.keepAlive()
	finished, err := s.follow(ctx, emit)
	if !finished {
		if err := s.tell(kindCancel); err != nil {
			c.log.Warn("cannot cancel a job; its lease will end it", "request", s.id, "worker", workerID, "error", err)
		}
	}
	return err
}

func (c *Conn) packJob(workerID string, job Job) ([]byte, error) {
	if err := checkName("worker", workerID); err != nil {
		return nil, &terse.Error{Code: terse.CodeNoWorker, Message: err.Error()}
	}
	if err := c.Connected(); err != nil {
		return nil, &terse.Error{Code: terse.CodeNoWorker, Message: fmt.Sprintf("cannot reach worker %q: %v", workerID, err)}
	}
	data, err := marshalJob(job, time.Now())
	if err != nil {
		return nil, asInvalid(err)
	}
	if len(data) > c.MaxPayload() {
		return nil, &terse.Error{Code: terse.CodeInvalid, Message: fmt.Sprintf(
			"cannot send request %s: its %d prompt tokens make a job of %d bytes, NATS at %s takes %d; raise max_payload in its configuration",
			job.Request.ID, len(job.Request.Prompt), len(data), c.where, c.MaxPayload())}
	}
	return data, nil
}

// hear hands messages to follow one at a time. While emit is slow they wait in
// the subscription, up to the backlog's bound, and the connection goes on reading.
func (s *submission) hear(m *nats.Msg) {
	select {
	case s.msgs <- m:
	case <-s.done:
	}
}

// tell sends a control message. The reply subject names the job, and brings
// NATS's word when nobody is subscribed for the worker.
func (s *submission) tell(kind byte) error {
	return s.conn.nc.PublishRequest(s.conn.workerSubject(s.worker, subjectCtl), s.stream, []byte{protocol, kind})
}

// keepAlive has its own goroutine because emit may block for long.
func (s *submission) keepAlive() {
	ticker := time.NewTicker(s.conn.beat)
	defer ticker.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-ticker.C:
			if err := s.tell(kindKeep); err != nil {
				s.conn.log.Warn("cannot keep a job alive", "request", s.id, "worker", s.worker, "error", err)
			}
		}
	}
}

// follow takes the stream to its end. finished says that the worker has ended
// the job by itself.
func (s *submission) follow(ctx context.Context, emit func(terse.Output) error) (finished bool, err error) {
	ticker := time.NewTicker(s.conn.tick())
	defer ticker.Stop()
	for {
		select {
		case m := <-s.msgs:
			finished, err := s.take(m, emit)
			if finished || err != nil {
				return finished, err
			}
		case <-ticker.C:
			s.silent++
		case <-ctx.Done():
			return false, endOf(s.id, ctx.Err())
		case <-s.conn.closed:
			return false, s.lost("this process closed its connection to NATS")
		}
		if s.silent >= leaseTicks {
			return false, s.lost(s.silence())
		}
	}
}

// silence says who of the two seems to be at fault.
func (s *submission) silence() string {
	if err := s.conn.Connected(); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("nothing heard for %v", 3*s.conn.beat)
}

func (s *submission) take(m *nats.Msg, emit func(terse.Output) error) (finished bool, err error) {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return false, s.nobody()
	}
	s.heard, s.silent = true, 0
	kind, body, err := header(m.Data)
	if err != nil {
		return false, fmt.Errorf("cannot understand worker %q: %w", s.worker, err)
	}
	if kind == kindUnknown {
		return false, s.lost("it does not know the job, it must have restarted")
	}
	if kind != kindOutput && kind != kindAlive {
		return false, s.broken(fmt.Errorf("message kind %d on a stream", kind))
	}
	r := reader{data: body}
	number := r.uvarint()
	if r.err != nil {
		return false, s.broken(r.err)
	}
	if err := s.checkNumber(number); err != nil {
		return false, err
	}
	if kind == kindAlive {
		return false, nil
	}
	out, err := unmarshalOutput(r.data)
	if err != nil {
		return false, s.broken(err)
	}
	s.next++
	return s.deliver(out, emit)
}

func (s *submission) deliver(out terse.Output, emit func(terse.Output) error) (finished bool, err error) {
	if out.Finish == terse.FinishError {
		if out.Err == nil {
			return true, s.broken(errors.New("the job failed without saying why"))
		}
		return true, out.Err
	}
	if err := emit(out); err != nil {
		return out.Finish != "", fmt.Errorf("cannot deliver an output of request %s: %w", s.id, err)
	}
	return out.Finish != "", nil
}

// nobody is NATS's word that no process is subscribed for the worker. Before
// the first answer that is final. Later the worker may be reconnecting: then it
// counts as a beat not heard, so that a killed worker is noticed sooner than
// one that is cut off.
func (s *submission) nobody() error {
	if !s.heard {
		return &terse.Error{Code: terse.CodeNoWorker, Message: fmt.Sprintf("no worker %q in cluster %q", s.worker, s.conn.cluster)}
	}
	s.silent += ticksPerBeat
	return nil
}

func (s *submission) checkNumber(number uint64) error {
	if number == s.next {
		return nil
	}
	if number < s.next {
		return s.broken(fmt.Errorf("message %d came after %d; do two workers use that name?", number, s.next))
	}
	return s.lost(fmt.Sprintf("%d outputs were lost on the way", number-s.next))
}

// lost is the error for a stream that ended before its last output. Where this
// side let go of messages the worker is not to blame, and another would fare
// no better.
func (s *submission) lost(why string) error {
	if dropped, err := s.sub.Dropped(); err == nil && dropped > 0 {
		return &terse.Error{Code: terse.CodeInternal, Message: fmt.Sprintf(
			"request %s failed: outputs were read so slowly that %d messages did not fit into %d bytes", s.id, dropped, s.conn.backlog)}
	}
	return &terse.Error{Code: terse.CodeWorkerLost, Message: fmt.Sprintf("worker %q lost: %s", s.worker, why)}
}

func (s *submission) broken(err error) error {
	return &terse.Error{Code: terse.CodeInternal, Message: fmt.Sprintf("cannot understand worker %q: %v", s.worker, err)}
}

// endOf is the error for a context that ended before the request did.
func endOf(id string, err error) error {
	code, what := terse.CodeCancelled, "was cancelled"
	if errors.Is(err, context.DeadlineExceeded) {
		code, what = terse.CodeDeadline, "did not end before its deadline"
	}
	return fmt.Errorf("%w: %w", &terse.Error{Code: code, Message: fmt.Sprintf("request %s %s", id, what)}, err)
}
