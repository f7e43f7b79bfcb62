package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// Fetch is one prompt's KV on its way here. It may be tried with one worker
// after another: what has arrived is not sent again.
type Fetch struct {
	// Lost, where set, is told why second planes that decoding goes on without will
	// not come.
	Lost func(error)

	client *Client
	plan   *plan
	lease  uint64

	copying   sync.RWMutex // held shared while page bytes are copied, alone when none may be any more
	unpacking *unpacking   // nil where parts are copied as they come

	mu        sync.Mutex
	view      *quant.View // nil when the pages are not ours any more
	unfit     error       // why nothing can be fetched into view
	state     []landing
	left      int
	first     int         // of them, those that decoding cannot begin without
	planes    map[int]int // by page, the second planes that may come later and have not
	begun     chan struct{}
	enough    bool               // decoding may have begun
	stopped   context.CancelFunc // ends what goes on behind it
	restarted bool               // once, by this worker
	anew      bool               // the next epoch is another computation's
	over      chan struct{}      // closed when nothing goes on any more, for why
	why       error
	held      int    // of each layer, the leading parts that were there before
	wanted    int    // all other parts
	fresh     []span // landed and not acknowledged
	freshLen  int64
	epoch     uint32
	numerics  string
	links     []*link // of this epoch, the control connection first
	accepted  bool
	done      []byte
	event     chan struct{} // holds one token when something below changed
	refusal   error
	res       Result
}

type landing uint8

const (
	partMissing landing = iota
	partLanding         // being copied
	partLanded
	partHeld // there before the fetch
)

// Result is what a fetch brought.
type Result struct {
	Done        []byte        // the prefill side's answer
	Bytes       int64         // KV payload that landed
	Second      int64         // of Bytes, second planes that came apart from the rest
	Held        int64         // KV payload that was there already and was not sent
	Again       int64         // KV payload that came although it was there
	First, Last time.Time     // when the first and the last KV frame had arrived
	Exposed     int64         // KV payload that had not arrived when the prompt was computed
	Unpack      time.Duration // of cores, decoding what came range-coded
	Resumed     int           // times that a broken transfer was gone on with
	Conns       int           // connections that took part, at most
}

// Begin prepares to fill view's pages with the KV of a prompt of n tokens. End
// must be called before the pages are used for anything else.
func (c *Client) Begin(view *quant.View, n int) *Fetch {
	f := &Fetch{client: c, plan: newPlan(c.Geometry, n, false), view: view, event: make(chan struct{}, 1)}
	if c.Geometry.Packs() {
		f.unpacking = newUnpacking()
	}
	for f.lease == 0 {
		f.lease = rand.Uint64()
	}
	f.state = make([]landing, f.plan.count())
	f.startOver()
	for n := range f.state {
		if f.plan.page(view, n) == nil {
			f.unfit = fmt.Errorf("BUG: part %d of a prompt of %d tokens has no page reserved", n, f.plan.n)
		}
	}
	return f
}

// Hold says, before anything is fetched, that the pages of the first tokens are
// filled: whole pages of a prefix that this worker holds. They are not asked
// for, and whatever comes they are not written.
func (f *Fetch) Hold(tokens int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = 0
	for _, p := range f.plan.parts {
		if (p.Page+1)*f.plan.g.Format.PageTokens > tokens {
			break
		}
		f.held++
	}
	f.startOver()
}

// End lets go of the pages: nothing writes to them when it has returned.
func (f *Fetch) End() {
	if !f.stop() {
		f.detach(nil)
	}
	f.mu.Lock()
	f.view = nil
	f.mu.Unlock()
	f.settle()
}

// Revoke takes the pages away from a fetch that may be going on, whose context has
// ended: nothing writes to them when it has returned.
func (f *Fetch) Revoke() {
	f.mu.Lock()
	f.view = nil
	f.mu.Unlock()
	f.settle()
}

// settle waits for the copies of frames that were taken before.
func (f *Fetch) settle() {
	f.copying.Lock()
	defer f.copying.Unlock()
}

// tries without progress before a worker is given up.
const maxTries = 4

// From asks the worker at addr to prefill request and waits for the hand-over.
// A broken connection is replaced and the transfer goes on. Errors are
// *terse.Error: CodeTransfer and CodeWorkerLost say to try elsewhere, with
// another From or from scratch; others are what the peer sent.
func (f *Fetch) From(ctx context.Context, addr string, request []byte) (Result, error) {
	if !f.plan.apart {
		return f.pursue(ctx, addr, request)
	}
	return f.begin(ctx, addr, request)
}

// pursue goes on until all is there, or will not come.
func (f *Fetch) pursue(ctx context.Context, addr string, request []byte) (Result, error) {
	err := f.unfit
	for try := 0; f.unfit == nil && try < maxTries; try++ {
		before := f.missing()
		if try > 0 {
			select {
			case <-time.After(time.Duration(try*try) * 20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		err = f.attempt(ctx, addr, request)
		if err == nil {
			return f.result(), nil
		}
		if f.complete() { // only the other side does not know
			return f.result(), nil
		}
		if ctx.Err() != nil {
			return f.result(), cancelled(ctx)
		}
		if !f.goOn(err, &try, before) {
			break
		}
	}
	return f.result(), err
}

// goOn reports whether the same worker is to be tried again after err.
func (f *Fetch) goOn(err error, try *int, before int) bool {
	switch code := terse.CodeOf(err); {
	case code != terse.CodeTransfer && code != terse.CodeWorkerLost:
		return false
	case f.peerSaid(err):
		return f.restart(code) // the worker itself gave up
	case f.missing() < before:
		*try = 0
	case code == terse.CodeWorkerLost && *try > 0:
		return false // silent twice, or nobody there
	case code == terse.CodeWorkerLost && before == f.wanted && !f.wasAccepted():
		return false // never there
	}
	f.mu.Lock()
	f.res.Resumed++
	f.mu.Unlock()
	return true
}

func cancelled(ctx context.Context) *terse.Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &terse.Error{Code: terse.CodeDeadline, Message: "the request's deadline passed during the KV transfer"}
	}
	return &terse.Error{Code: terse.CodeCancelled, Message: "the KV transfer was cancelled"}
}

func (f *Fetch) missing() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left
}

func (f *Fetch) wasAccepted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accepted
}

func (f *Fetch) peerSaid(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refusal != nil && errors.Is(err, f.refusal)
}

func (f *Fetch) result() Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.res
	r.Done = f.done
	return r
}

// attempt is one epoch: from a request to everything there, or to the loss of
// the control connection.
func (f *Fetch) attempt(ctx context.Context, addr string, request []byte) (err error) {
	control, err := f.connect(ctx, addr)
	if err != nil {
		return err
	}
	laneCtx, stopLanes := context.WithCancel(ctx)
	var lanes sync.WaitGroup
	defer func() {
		stopLanes()
		if err != nil && control.alive() {
			control.send(header{kind: frameCancel, lease: f.lease, epoch: f.currentEpoch()})
		}
		lanes.Wait()
		f.detach(func(l *link) { f.client.give(addr, l) })
	}()
	if err := f.open(control, request); err != nil {
		return classify(addr, err)
	}
	timer := time.NewTimer(f.client.Timeouts.orDefault().Hello)
	defer timer.Stop()
	laneErrors := 0
	for joined := false; ; {
		select {
		case <-ctx.Done():
			return cancelled(ctx)
		case <-control.dead:
			return classify(addr, control.err)
		case <-timer.C:
			return lost(addr, errSilent)
		case <-f.event:
		}
		accepted, complete, broken, refusal := f.look(control)
		switch {
		case refusal != nil:
			return refusal
		case complete:
			f.acknowledge(control, true)
			return nil
		case accepted && (!joined || broken && laneErrors < 8):
			if joined {
				laneErrors++
				f.acknowledge(control, true) // what the broken one brought need not come again
			}
			joined = true
			timer.Stop()
			lanes.Go(func() { f.widen(laneCtx, addr) })
		}
	}
}

// connect is a warm connection, or a new one.
func (f *Fetch) connect(ctx context.Context, addr string) (*link, error) {
	if l := f.client.takeIdle(addr); l != nil {
		return l, nil
	}
	return f.client.dial(ctx, addr)
}

func (f *Fetch) currentEpoch() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epoch
}

// open begins an epoch on a control connection.
func (f *Fetch) open(l *link, request []byte) error {
	f.mu.Lock()
	f.epoch++
	f.mu.Unlock()
	f.settle() // frames of earlier epochs are not taken any more
	f.mu.Lock()
	f.links, f.accepted, f.refusal, f.done = []*link{l}, false, nil, nil
	f.fresh, f.freshLen = nil, 0
	if f.numerics != l.peer.Numerics {
		if f.enough {
			f.mu.Unlock()
			return errors.New("the worker there computes otherwise than the one that began")
		}
		f.startOver()
	}
	f.numerics = l.peer.Numerics
	anew := f.anew
	f.anew = false
	var have []span
	for i, s := range f.state {
		if s >= partLanded {
			have = addSpan(have, i)
		}
	}
	epoch := f.epoch
	f.res.Conns = max(f.res.Conns, 1)
	f.mu.Unlock()
	l.user.Store(f)
	head := binary.LittleEndian.AppendUint32(nil, uint32(f.plan.n))
	head = binary.LittleEndian.AppendUint64(head, uint64(f.client.window()))
	flags := uint32(0)
	if f.plan.apart {
		flags = flagApart
		if !anew {
			flags |= flagGoOn
		}
	}
	head = binary.LittleEndian.AppendUint32(head, flags)
	return l.send(header{kind: frameRequest, lease: f.lease, epoch: epoch, ranges: uint32(len(have))}, appendSpans(nil, have), head, request)
}

// startOver forgets what has arrived. f.mu is held.
func (f *Fetch) startOver() {
	f.left, f.res.Held = 0, 0
	for n := range f.state {
		if _, part := f.plan.at(n); part < f.held {
			f.state[n] = partHeld
			f.res.Held += int64(f.plan.bytesOf(n))
			continue
		}
		f.state[n] = partMissing
		f.left++
	}
	f.wanted, f.first = f.left, f.left
	clear(f.planes)
	for n, st := range f.state {
		if st == partMissing && f.plan.later(n) {
			f.first--
			_, part := f.plan.at(n)
			f.planes[f.plan.parts[part].Page]++
		}
	}
	f.res.Unpack = 0
	f.res.Bytes, f.res.Second, f.res.First, f.res.Last = 0, 0, time.Time{}, time.Time{}
}

// laneBytes is how much must be missing for each further connection.
const laneBytes = 2 << 20

// widen adds connections up to what the transfer's size is worth.
func (f *Fetch) widen(ctx context.Context, addr string) {
	epoch := f.currentEpoch()
	for {
		f.mu.Lock()
		missing := float64(f.left) / float64(len(f.state)) * float64(f.plan.total())
		want := min(f.client.conns(), 1+int(missing/laneBytes))
		enough := f.epoch != epoch || f.view == nil || len(f.links) == 0 || len(f.links) >= want
		f.mu.Unlock()
		if enough {
			return
		}
		l, err := f.connect(ctx, addr)
		if err != nil {
			return // the others will do
		}
		f.mu.Lock()
		ok := f.epoch == epoch && len(f.links) > 0
		if ok {
			f.links = append(f.links, l)
			f.res.Conns = max(f.res.Conns, len(f.links))
			l.user.Store(f)
		}
		f.mu.Unlock()
		if !ok {
			f.client.give(addr, l)
			return
		}
		l.send(header{kind: frameJoin, lease: f.lease, epoch: epoch}) // the reader sees a broken one
	}
}

// detach ends an epoch: its connections bring nothing more, and go to give.
func (f *Fetch) detach(give func(*link)) {
	f.mu.Lock()
	links := f.links
	f.links = nil
	f.mu.Unlock()
	for _, l := range links {
		l.user.CompareAndSwap(f, nil)
		if give != nil {
			give(l)
		}
	}
}

func (f *Fetch) signal() {
	select {
	case f.event <- struct{}{}:
	default:
	}
}

// look is what attempt decides on. Connections beside control that broke are
// taken out.
func (f *Fetch) look(control *link) (accepted, complete, broken bool, refusal error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links = slices.DeleteFunc(f.links, func(l *link) bool {
		gone := l != control && !l.alive()
		broken = broken || gone
		return gone
	})
	f.begins()
	return f.accepted, f.left == 0 && f.done != nil, broken, f.refusal
}

// refused hears that the peer will not, or cannot, do its part.
func (f *Fetch) refused(l *link, epoch uint32, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if epoch == f.epoch && len(f.links) > 0 && f.links[0] == l { // else a Join that came too late
		f.refusal = err
		f.signal()
	}
}

// take handles a frame of this transfer that came over l.
func (f *Fetch) take(l *link, h *header, payload []byte) error {
	if h.kind == frameKV {
		return f.kv(l, h, payload)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.epoch != f.epoch {
		return nil // stale
	}
	switch h.kind {
	case frameAccept:
		if len(payload) != 12 || int(binary.LittleEndian.Uint32(payload)) != f.plan.count() ||
			int64(binary.LittleEndian.Uint64(payload[4:])) != f.plan.total() {
			return errors.New("the prefill side counts other parts than this one: run the same terse on both")
		}
		f.accepted = true
	case frameDone:
		if len(payload) < doneHead {
			return fmt.Errorf("an answer of %d bytes", len(payload))
		}
		f.res.Exposed = int64(binary.LittleEndian.Uint64(payload))
		f.done = append([]byte{}, payload[doneHead:]...)
	}
	f.signal()
	return nil
}

// kv copies a verified frame's page bytes to where they belong.
func (f *Fetch) kv(l *link, h *header, payload []byte) error {
	spans, data, err := decodeSpans(h, payload, f.plan.count())
	if err != nil {
		return err
	}
	if err := f.plan.fit(spans, data); err != nil {
		return err
	}
	f.copying.RLock()
	view, mine := f.claim(l, h, spans)
	if len(mine) > 0 && f.unpacking != nil {
		f.unpack(l, view, spans, mine, data)
		return nil
	}
	defer f.copying.RUnlock()
	return f.landAll(view, spans, mine, data, func(page []byte, n int, data []byte) error {
		f.plan.put(page, n, data)
		return nil
	})
}

// landAll writes those of a frame's parts that are mine to their pages, by put, and
// books them.
func (f *Fetch) landAll(view *quant.View, spans, mine []span, data []byte, put func(page []byte, n int, data []byte) error) error {
	rest, landed, second := mine, 0, 0
	for _, s := range spans {
		for n := s.first; n < s.first+s.count; n++ {
			size, _ := f.plan.sizeIn(int(n), data) // it fits
			if len(rest) > 0 && rest[0].first+rest[0].count <= n {
				rest = rest[1:]
			}
			if len(rest) > 0 && rest[0].first <= n {
				if err := put(f.plan.page(view, int(n)), int(n), data[:size]); err != nil {
					return err
				}
				landed += size
				if f.plan.later(int(n)) {
					second += size
				}
			}
			data = data[size:]
		}
	}
	if view != nil && view.Came != nil && len(mine) > 0 {
		view.Came(f.plan.pieces(mine))
	}
	if control := f.landed(mine, int64(landed), int64(second)); control != nil {
		f.acknowledge(control, false)
	}
	return nil
}

// claim marks the parts that are not there yet as coming, and returns them and
// the view they go to; none for a frame of another epoch.
func (f *Fetch) claim(l *link, h *header, spans []span) (*quant.View, []span) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.view == nil || h.epoch != f.epoch || !slices.Contains(f.links, l) {
		return nil, nil
	}
	var mine []span
	for _, s := range spans {
		for n := s.first; n < s.first+s.count; n++ {
			if f.state[n] == partMissing {
				f.state[n] = partLanding
				mine = addSpan(mine, int(n))
			} else {
				f.res.Again += int64(f.plan.bytesOf(int(n)))
			}
		}
	}
	return f.view, mine
}

// put copies a part's bytes to its layer of a page.
func (p *plan) put(page []byte, number int, data []byte) {
	if layer, i := p.at(number); p.parts[i].Planes == quant.SecondPlane {
		p.g.At(layer).PutSecond(page, data)
		return
	}
	for _, at := range p.place(number).spans {
		data = data[copy(page[at.Off:at.Off+at.Len], data):]
	}
}

// landed books what was copied, size bytes, some of them of second planes. It returns the control connection when it is
// time to acknowledge.
func (f *Fetch) landed(spans []span, size, second int64) *link {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range spans {
		for n := s.first; n < s.first+s.count; n++ {
			f.state[n] = partLanded
		}
		f.left -= int(s.count)
		f.count(s)
		f.fresh = append(f.fresh, s)
	}
	f.freshLen += f.plan.bytes(spans) // as the other side counts what is on its way
	f.res.Bytes += size
	f.res.Second += second
	f.res.Last = time.Now()
	if f.res.First.IsZero() {
		f.res.First = f.res.Last
	}
	if f.left == 0 {
		f.signal()
	}
	if len(f.links) > 0 && f.freshLen >= f.client.window()/8 {
		return f.links[0]
	}
	return nil
}

// acknowledge tells the prefill side what has arrived; that is also the credit
// to send as much again. All says to name every part that is there.
func (f *Fetch) acknowledge(control *link, all bool) {
	f.mu.Lock()
	spans := f.fresh
	f.fresh, f.freshLen = nil, 0
	if all {
		spans = nil
		for i, s := range f.state {
			if s >= partLanded {
				spans = addSpan(spans, i)
			}
		}
	}
	epoch := f.epoch
	f.mu.Unlock()
	slices.SortFunc(spans, func(a, b span) int { return int(a.first) - int(b.first) })
	control.send(header{kind: frameAck, lease: f.lease, epoch: epoch, ranges: uint32(len(spans))}, appendSpans(nil, spans))
}
