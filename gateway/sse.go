package gateway

import (
	"net/http"
	"sync"
	"time"
)

// eventStream writes server-sent events. Its status goes out with the first
// event, so that a failure before it can still be a plain error answer.
type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration // for a client to take an event

	mu      sync.Mutex
	started bool
}

func newEventStream(w http.ResponseWriter, timeout time.Duration) *eventStream {
	return &eventStream{w: w, control: http.NewResponseController(w), timeout: timeout}
}

// send writes the events and flushes them to the client.
func (e *eventStream) send(events ...any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var frame []byte
	for _, v := range events {
		frame = appendEvent(frame, encodeJSON(v))
	}
	return e.write(frame)
}

// done writes the event that ends a good stream.
func (e *eventStream) done() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.write(appendEvent(nil, []byte("[DONE]")))
}

func appendEvent(frame, data []byte) []byte {
	frame = append(frame, "data: "...)
	frame = append(frame, data...)
	return append(frame, "\n\n"...)
}

func (e *eventStream) write(frame []byte) error {
	e.start()
	// A client that takes nothing would hold a worker's slot for ever. Writers
	// without deadlines (tests) have no such client.
	_ = e.control.SetWriteDeadline(time.Now().Add(e.timeout))
	if _, err := e.w.Write(frame); err != nil {
		return clientGone(err)
	}
	if err := e.control.Flush(); err != nil {
		return clientGone(err)
	}
	return nil
}

func (e *eventStream) start() {
	if e.started {
		return
	}
	e.started = true
	h := e.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no") // nginx would collect the events
	h.Set("Trailer", timingHeader)
	e.w.WriteHeader(http.StatusOK)
}

// end lifts the deadline from the connection, which other requests will use.
func (e *eventStream) end() { _ = e.control.SetWriteDeadline(time.Time{}) }

// streamer is the sink of a streamed answer.
type streamer struct {
	x      *exchange
	events *eventStream
	open   []bool // by choice; each is touched by its own goroutine only
}

func (st *streamer) delta(i int, d delta) error {
	return st.send(i, st.x.shape.step(st.x, i, d))
}

func (st *streamer) finish(i int, r choiceResult) error {
	return st.send(i, st.x.shape.closing(st.x, i, r.finish))
}

func (st *streamer) send(i int, chunk any) error {
	if st.open[i] {
		return st.events.send(chunk)
	}
	st.open[i] = true
	if first := st.x.shape.opening(st.x, i); first != nil {
		return st.events.send(first, chunk)
	}
	return st.events.send(chunk)
}
