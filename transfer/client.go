package transfer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// Client is the decode side of the wire.
type Client struct {
	Hello    Hello
	Geometry *quant.Geometry
	Dial     func(ctx context.Context, addr string) (net.Conn, error)
	Timeouts Timeouts
}

// Result is what a fetch brought.
type Result struct {
	Done        []byte    // the prefill side's answer
	Bytes       int64     // KV payload
	First, Last time.Time // of the first and the last KV byte's frame
}

// Fetch asks the worker at addr to prefill request, a prompt of n tokens, and
// fills view's pages as they come. On any error the pages' contents are
// undefined and the request must be prefilled anew: errors are *terse.Error of
// CodeTransfer or CodeWorkerLost (try elsewhere) or what the peer sent.
func (c *Client) Fetch(ctx context.Context, addr string, epoch uint32, request []byte, view *quant.View, n int) (Result, error) {
	to := c.Timeouts.orDefault()
	dialCtx, cancel := context.WithTimeout(ctx, to.Hello)
	conn, err := c.Dial(dialCtx, addr)
	cancel()
	if err != nil {
		return Result{}, lost(addr, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	f := &fetch{
		conn: conn, view: view, progress: NewProgress(c.Geometry, n), to: to,
		r: &reader{r: bufio.NewReaderSize(conn, 64<<10), epoch: epoch, maxKV: maxFrame(c.Geometry, n)},
		w: &writer{w: conn, epoch: epoch},
	}
	res, err := f.run(c.Hello, epoch, request)
	if err != nil && ctx.Err() != nil {
		return res, &terse.Error{Code: terse.CodeCancelled, Message: "the KV transfer was cancelled"}
	}
	return res, classify(addr, err)
}

// maxFrame bounds a KV frame: one layer of the whole prompt.
func maxFrame(g *quant.Geometry, n int) int {
	pages := n/g.Format.PageTokens + 1
	return pages * (g.ExactBytes() + g.CodedBytes() + 3*partLen)
}

// classify gives every failure a code that says whether to try elsewhere.
func classify(addr string, err error) error {
	var typed *terse.Error
	var timeout net.Error
	switch {
	case err == nil || errors.As(err, &typed):
		return err
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return lost(addr, errors.New("it fell silent"))
	}
	return &terse.Error{Code: terse.CodeTransfer, Message: fmt.Sprintf("cannot take over KV from %s: %v", addr, err)}
}

func lost(addr string, err error) error {
	return &terse.Error{Code: terse.CodeWorkerLost, Message: fmt.Sprintf("cannot reach the prefill worker at %s: %v", addr, err)}
}

// fetch is one running fetch.
type fetch struct {
	conn     net.Conn
	r        *reader
	w        *writer
	view     *quant.View
	progress *Progress
	to       Timeouts
	res      Result
}

func (f *fetch) run(hello Hello, epoch uint32, request []byte) (Result, error) {
	f.conn.SetDeadline(time.Now().Add(f.to.Hello))
	hello.Epoch = epoch
	mine, err := json.Marshal(hello)
	if err != nil {
		return f.res, err
	}
	if err := f.w.write(frameHello, 0, 0, mine); err != nil {
		return f.res, err
	}
	b, err := expect(f.r, frameHello)
	if err != nil {
		return f.res, err
	}
	peer, err := decodeHello(b)
	if err != nil {
		return f.res, err
	}
	if err := hello.match(peer); err != nil {
		return f.res, err
	}
	if err := f.w.write(frameRequest, 0, 0, request); err != nil {
		return f.res, err
	}
	f.conn.SetDeadline(time.Time{})
	stop := f.keepAlive()
	defer stop()
	err = f.receive()
	return f.res, err
}

// keepAlive pings the prefill side, which may be silent towards us for long
// and must still know that we are there.
func (f *fetch) keepAlive() (stop func()) {
	quit, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		t := time.NewTicker(f.to.Ping)
		defer t.Stop()
		for {
			select {
			case <-quit:
				return
			case <-t.C:
				f.conn.SetWriteDeadline(time.Now().Add(f.to.Idle))
				if f.w.write(framePing, 0, 0) != nil {
					return // the reading side sees the broken connection
				}
			}
		}
	}()
	return func() { close(quit); <-stopped }
}

// receive reads frames until Done.
func (f *fetch) receive() error {
	for {
		f.conn.SetReadDeadline(time.Now().Add(f.to.Idle))
		h, crc, err := f.r.next()
		if err != nil {
			return noEOF(err)
		}
		if h.kind == frameKV {
			if err := f.kv(h, crc); err != nil {
				return err
			}
			continue
		}
		b, err := f.r.payload(h, crc)
		if err != nil {
			return err
		}
		switch h.kind {
		case framePing:
		case frameError:
			return decodeError(b)
		case frameDone:
			if !f.progress.Done() {
				return fmt.Errorf("the prefill side says done with %d parts missing", f.progress.left)
			}
			f.res.Done = b
			return nil
		default:
			return fmt.Errorf("frame type %d in the middle of a transfer", h.kind)
		}
	}
}

// kv reads one KV frame's page bytes to where they belong. The checksum is
// known only after the bytes are in the pages: they are a reserved sequence's
// and nobody reads them until the whole hand-over is verified.
func (f *fetch) kv(h header, crc uint32) error {
	g := f.view.Geometry
	if int(h.layer) >= g.Layers || h.parts > maxParts || h.parts*partLen > h.length {
		return fmt.Errorf("KV frame for layer %d of %d with %d parts in %d bytes", h.layer, g.Layers, h.parts, h.length)
	}
	if f.res.First.IsZero() {
		f.res.First = time.Now()
	}
	table := make([]byte, h.parts*partLen)
	crc, err := f.r.into(table, crc)
	if err != nil {
		return err
	}
	parts, err := decodeParts(table)
	if err != nil {
		return err
	}
	if err := f.checkParts(h, parts); err != nil {
		return err
	}
	for _, p := range parts {
		page := pageOf(f.view, p, int(h.layer))
		for _, span := range g.PartSpans(p) {
			f.conn.SetReadDeadline(time.Now().Add(f.to.Idle))
			if crc, err = f.r.into(page[span.Off:span.Off+span.Len], crc); err != nil {
				return err
			}
			f.res.Bytes += int64(span.Len)
		}
	}
	f.res.Last = time.Now()
	return h.verify(crc)
}

// checkParts refuses parts that are not due, that came before, that have no
// page here, or that do not add up to the frame's length.
func (f *fetch) checkParts(h header, parts []quant.Part) error {
	total := len(parts) * partLen
	for _, p := range parts {
		if !f.progress.take(int(h.layer), p) {
			return fmt.Errorf("page %d of layer %d (coded %v, tokens [%d,%d)) came unasked or twice", p.Page, h.layer, p.Coded, p.Lo, p.Hi)
		}
		if pageOf(f.view, p, int(h.layer)) == nil {
			return fmt.Errorf("page %d of layer %d (coded %v) has no place reserved", p.Page, h.layer, p.Coded)
		}
		total += partBytes(f.view.Geometry, p)
	}
	if total != int(h.length) {
		return fmt.Errorf("KV frame of %d bytes should have %d for its parts", h.length, total)
	}
	return nil
}
