package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/terse-llm/terse/quant"
)

// frameTarget is how many page bytes a KV frame carries where that many are
// ready: enough that its fixed costs do not count, little enough to lie in a
// core's cache between the checksum and the socket.
const frameTarget = 256 << 10

// Sender streams one prompt's pages, as they are written, over all connections
// that the decoder has given the transfer. It is an engine's sink: Written and
// Stop are its two methods. Its methods are safe for concurrent use.
type Sender struct {
	lease  uint64
	peer   string // worker that may resume it
	to     Timeouts
	cancel context.CancelCauseFunc // of the handler's context

	mu      sync.Mutex
	changed *sync.Cond
	plan    *plan
	state   []partState
	lane    []*link // that a part was sent on
	next    []int   // of each layer, the first part not ready yet
	view    *quant.View
	ready   []span // to be sent, in this order
	later   []span // to be sent when nothing of the others is left
	unacked int    // parts not acknowledged
	flight  int64  // bytes sent and not acknowledged
	window  int64  // bound of flight, the decoder's
	epoch   uint32
	lanes   []*link // the first is the control connection; empty while it is lost
	writing map[*link]int
	expiry  *time.Timer // runs while there is no control connection
	done    []byte      // payload of Done, nil before Finish
	told    bool        // Done has been handed to this epoch's socket
	err     error       // why no more is sent
	sent    int64       // KV payload, repetitions included

	toPack, packedParts int // parts that are range-coded: those the decoder had not, and those done
	packTime            time.Duration
	moved               time.Time // of the last acknowledgement or hand-over to a socket
}

type partState uint8

const (
	partWaiting partState = iota // not written by prefill
	partReady
	partSent
	partAcked
)

// newSender prepares a transfer of n tokens of which the decoder has some parts.
func newSender(g *quant.Geometry, n int, apart bool, lease uint64, window int64, to Timeouts) *Sender {
	s := &Sender{lease: lease, to: to, plan: newPlan(g, n, apart), window: window, writing: map[*link]int{}, moved: time.Now()}
	s.changed = sync.NewCond(&s.mu)
	count := s.plan.count()
	s.state, s.lane, s.next, s.unacked = make([]partState, count), make([]*link, count), make([]int, g.Layers), count
	return s
}

// Tokens is the length of the prompt that the decoder has reserved pages for.
func (s *Sender) Tokens() int { return s.plan.n }

// attach gives the transfer a (new) control connection: what was sent over
// earlier ones and has not arrived is sent again.
func (s *Sender) attach(l *link, epoch uint32, have []span, window int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	s.acked(have)
	if s.epoch == 0 {
		s.toPack = s.unacked
	}
	s.epoch, s.window, s.flight = epoch, window, 0
	s.lanes = []*link{l}
	s.ready, s.later = s.ready[:0], s.later[:0]
	for i, st := range s.state {
		if st == partSent || st == partReady {
			s.state[i] = partWaiting
			s.offer(i)
		}
	}
	go s.run(l, epoch)
	if s.told = false; s.done != nil {
		go s.tell(l, epoch, s.done)
	}
	s.changed.Broadcast()
}

// tell sends the answer. What may come later goes behind it, and must not get in
// between: decoding waits for it.
func (s *Sender) tell(l *link, epoch uint32, done []byte) error {
	err := l.send(header{kind: frameDone, lease: s.lease, epoch: epoch}, done)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && epoch == s.epoch {
		s.told = true
		s.changed.Broadcast()
	}
	return err
}

// open reports whether the transfer can go on in a later epoch.
func (s *Sender) open(epoch uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == nil && epoch > s.epoch
}

// join adds a connection.
func (s *Sender) join(l *link, epoch uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch != s.epoch || len(s.lanes) == 0 || s.err != nil {
		return fmt.Errorf("transfer %x is at epoch %d, not %d", s.lease, s.epoch, epoch)
	}
	if !slices.Contains(s.lanes, l) {
		s.lanes = append(s.lanes, l)
		go s.run(l, epoch)
	}
	return nil
}

// lost takes a connection away. Without the control connection the decoder has
// Timeouts.Lease to come back.
func (s *Sender) lost(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.lanes, l)
	if i < 0 {
		return
	}
	s.lanes = slices.Delete(s.lanes, i, i+1)
	if i == 0 {
		s.lanes = nil
		if s.err == nil {
			s.expiry = time.AfterFunc(s.to.Lease, func() { s.abort(errors.New("the decode worker is lost")) })
		}
	} else {
		s.requeue(l)
	}
	s.changed.Broadcast()
}

// requeue makes ready again what was sent over l and has not arrived.
func (s *Sender) requeue(l *link) {
	var again []span
	for i, at := range s.lane {
		if at == l && s.state[i] == partSent {
			s.state[i] = partReady
			s.flight -= int64(s.plan.bytesOf(i))
			again = addSpan(again, i)
		}
	}
	s.ready = append(again, s.ready...)
}

// ack notes parts that have arrived.
func (s *Sender) ack(parts []span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked(parts)
	s.moved = time.Now()
	s.changed.Broadcast()
}

func (s *Sender) acked(parts []span) {
	for _, p := range parts {
		for i := p.first; i < p.first+p.count; i++ {
			switch s.state[i] {
			case partAcked:
				continue
			case partSent:
				s.flight -= int64(s.plan.bytesOf(int(i)))
			}
			s.state[i], s.lane[i] = partAcked, nil
			s.unacked--
		}
	}
}

// Written says that the first tokens of a layer are in view's pages. It does
// not wait; the pages that a hand-over needs must stay as they are until Stop
// has returned.
func (s *Sender) Written(layer, tokens int, view *quant.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = view
	if len(s.ready) == 0 && s.flight == 0 {
		s.moved = time.Now() // nothing was there to be moved
	}
	i := s.next[layer]
	for ; i < len(s.plan.parts) && s.plan.whole(i, tokens); i++ {
		if s.plan.parts[i].Planes != quant.SecondPlane || s.plan.apart { // else Selected tells
			s.offer(layer*len(s.plan.parts) + i)
		}
	}
	s.next[layer] = i
	s.changed.Broadcast()
}

// Selected says that the second planes of a layer are in view's pages, those of the
// important tokens.
func (s *Sender) Selected(layer int, view *quant.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = view
	for i, part := range s.plan.parts {
		if part.Planes == quant.SecondPlane {
			s.offer(layer*len(s.plan.parts) + i)
		}
	}
	s.changed.Broadcast()
}

// offer makes a part ready to be sent, once.
func (s *Sender) offer(number int) {
	switch {
	case s.state[number] != partWaiting:
		return
	case s.plan.later(number):
		s.later = addSpan(s.later, number)
	default:
		s.ready = addSpan(s.ready, number)
	}
	s.state[number] = partReady
}

// run sends over one connection until that, or the transfer, ends.
func (s *Sender) run(l *link, epoch uint32) {
	var table []byte
	var bufs [][]byte
	var pack packer
	for {
		batch, view := s.take(l, epoch)
		if batch == nil {
			return
		}
		table = appendSpans(table[:0], batch)
		bufs = append(bufs[:0], table)
		pack.reset()
		err := error(nil)
		for _, b := range batch {
			for n := int(b.first); n < int(b.first+b.count) && err == nil; n++ {
				bufs, err = s.plan.appendBytes(bufs, view, n, &pack)
			}
		}
		s.packed(&pack)
		if err != nil {
			s.release(l)
			s.abort(err)
			return
		}
		err = l.send(header{kind: frameKV, lease: s.lease, epoch: epoch, ranges: uint32(len(batch))}, bufs...)
		s.release(l)
		if err != nil {
			s.lost(l)
			return
		}
	}
}

// packer is the memory of what is sent range-coded: one frame's parts.
type packer struct {
	scratch quant.PackScratch
	out     []byte
	parts   int
	saved   int64 // of what the parts are counted with
	took    time.Duration
}

func (p *packer) reset() { p.out, p.parts, p.saved, p.took = p.out[:0], 0, 0, 0 }

// packed books what it took to code a frame's parts, and the bytes that they are less
// than counted with.
func (s *Sender) packed(p *packer) {
	if p.parts == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packedParts, s.packTime = s.packedParts+p.parts, s.packTime+p.took
	s.sent -= p.saved
}

// PackTime is what range-coding all parts that must be sent takes of a core, judged
// by those coded so far; 0 where the format has none.
func (s *Sender) PackTime() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.packedParts == 0 {
		return 0
	}
	return time.Duration(float64(s.packTime) / float64(s.packedParts) * float64(s.toPack))
}

// appendBytes appends the spans of a part's bytes.
func (p *plan) appendBytes(bufs [][]byte, view *quant.View, number int, pack *packer) ([][]byte, error) {
	page := p.page(view, number)
	layer, i := p.at(number)
	if page == nil {
		return nil, fmt.Errorf("cannot send page %d of layer %d: it is not there (coded %v)", p.parts[i].Page, layer, p.parts[i].Coded)
	}
	if p.packed(i) {
		start, from := time.Now(), len(pack.out)
		pack.out = p.g.At(layer).Pack(pack.out, page, p.parts[i].Hi, &pack.scratch) // what lies before stays as it is, also where it moves
		pack.took += time.Since(start)
		pack.parts++
		pack.saved += int64(p.bytesOf(number) - (len(pack.out) - from))
		return append(bufs, pack.out[from:]), nil
	}
	for _, at := range p.spansOf(number, page) {
		bufs = append(bufs, page[at.Off:at.Off+at.Len])
	}
	return bufs, nil
}

// take waits for parts that l may send now; nil when it is to send no more.
func (s *Sender) take(l *link, epoch uint32) ([]span, *quant.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.err != nil || s.epoch != epoch || !slices.Contains(s.lanes, l) {
			return nil, nil
		}
		if batch := s.batch(l); batch != nil {
			s.writing[l]++
			return batch, s.view
		}
		s.changed.Wait()
	}
}

// batch takes the next frame's parts off the queue, as far as the window goes.
// What may come later goes when the answer is known and all others have gone.
func (s *Sender) batch(l *link) []span {
	if len(s.ready) == 0 && s.told {
		s.ready, s.later = s.later, nil
	}
	var batch []span
	var size int64
	for len(s.ready) > 0 {
		q := &s.ready[0]
		n := int(q.first)
		if s.state[n] == partReady {
			b := int64(s.plan.bytesOf(n))
			if size > 0 && size+b > frameTarget || s.flight > 0 && s.flight+b > s.window {
				break
			}
			if len(batch) > 0 && batch[len(batch)-1].first >= uint32(n) {
				break // a frame's ranges rise
			}
			size += b
			s.flight += b
			s.state[n], s.lane[n] = partSent, l
			batch = addSpan(batch, n)
		} // else acknowledged while it waited to be sent again
		if q.first, q.count = q.first+1, q.count-1; q.count == 0 {
			s.ready = s.ready[1:]
		}
	}
	s.sent += size
	return batch
}

func (s *Sender) release(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing[l]--; s.writing[l] == 0 {
		delete(s.writing, l)
	}
	s.moved = time.Now()
	s.changed.Broadcast()
}

// doneHead is the size of what Done says before the answer: how many bytes of
// parts had not arrived when the answer was known, u64.
const doneHead = 8

// exposed is what has not arrived yet: not sent, or in a socket's queue. s.mu is
// held.
func (s *Sender) exposed() int64 {
	var n int64
	for _, l := range s.lanes {
		n += int64(l.queued())
	}
	for i, st := range s.state {
		if s.plan.later(i) {
			continue
		}
		if st == partReady || st == partSent && s.writing[s.lane[i]] > 0 {
			n += int64(s.plan.place(i).likely)
		}
	}
	return min(n, s.plan.total())
}

// Finish sends the answer and waits until the decoder has everything, or the
// transfer has failed.
func (s *Sender) Finish(done []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(binary.LittleEndian.AppendUint64(nil, uint64(s.exposed())), done...)
	if len(s.lanes) > 0 && s.err == nil {
		control, epoch := s.lanes[0], s.epoch
		s.writing[control]++
		s.mu.Unlock()
		err := s.tell(control, epoch, s.done)
		s.release(control)
		if err != nil {
			s.lost(control)
		}
		s.mu.Lock()
	}
	for s.unacked > 0 && s.err == nil {
		s.changed.Wait()
	}
	return s.err
}

// Stop returns when nothing reads the pages any more. A frame that a slow or
// stalled link still holds then costs that link.
func (s *Sender) Stop() {
	s.abort(errStopped)
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.writing) > 0 {
		s.changed.Wait()
	}
}

var errStopped = errors.New("the transfer was given up")

// abort ends the transfer, with its handler, for the first reason given.
func (s *Sender) abort(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		time.AfterFunc(s.to.Stop, s.breakOff)
		s.err = asTransfer(fmt.Errorf("cannot hand over KV: %w", err))
	}
	if s.expiry != nil {
		s.expiry.Stop()
	}
	if s.cancel != nil {
		s.cancel(s.err)
	}
	s.changed.Broadcast()
}

// breakOff ends the connections whose writes a slow or stalled link still holds.
func (s *Sender) breakOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.writing {
		l.fail(errStopped)
	}
}

// Bytes is the KV payload sent so far, what was sent again included.
func (s *Sender) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// stuck is for how long parts have been ready, or under way, and none moved.
func (s *Sender) stuck(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || len(s.ready) == 0 && s.flight == 0 {
		return 0
	}
	return now.Sub(s.moved)
}
