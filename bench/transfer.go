package bench

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/transfer"
	"github.com/terse-llm/terse/transfer/tcp"
)

// TransferOptions describe a KV cache to move, and how. Both sides need the
// same ones, but for Tokens, Conns and what concerns the report.
type TransferOptions struct {
	Formats                []string
	Layers, KVHeads, Dim   int
	Tokens                 int  // of a prompt
	Conns                  int  // of a transfer
	Progressive            bool // also with second planes apart from the rest, where formats have some
	Key                    []byte
	TLS                    *tls.Config
	Time                   time.Duration // for all rounds together
	Iperf                  bool          // compare with iperf3 where it is installed
	Log                    func(string)
	geometries             []*quant.Geometry
	iperfServer, iperfPort string
}

// TransferRow is what moving one prompt's KV took.
type TransferRow struct {
	Format    string  `json:"format"`
	Bytes     int64   `json:"bytes"`
	Second    int64   `json:"bytes_second,omitempty"` // of them, second planes that came apart from the rest
	Time      Sample  `json:"time"`
	Begin     Sample  `json:"begin,omitzero"`      // until decoding could begin, without them
	Gbps      float64 `json:"gbit_per_s"`          // KV payload, at the median
	F16Gbps   float64 `json:"f16_gbit_per_s"`      // what f16's bytes would have had to move at
	OfIperf   float64 `json:"of_iperf3,omitempty"` // Gbps over iperf3's with as many connections
	SendCores float64 `json:"send_cores"`          // CPU time of the sending process over the time
	RecvCores float64 `json:"recv_cores"`
}

// IperfRow is what iperf3 reached over the same link.
type IperfRow struct {
	Conns     int     `json:"conns"`
	Gbps      float64 `json:"gbit_per_s"` // median of the rounds
	SendCores float64 `json:"send_cores"`
	RecvCores float64 `json:"recv_cores"`
}

// TransferReport is what Transfer measured.
type TransferReport struct {
	Machine       Machine       `json:"machine"`
	Link          string        `json:"link"`
	Tokens, Conns int           `json:"-"`
	Shape         string        `json:"shape"`
	Rows          []TransferRow `json:"transfers"`
	Iperf         []IperfRow    `json:"iperf3,omitempty"`
	Cold          time.Duration `json:"first_transfer_cold"` // one token, connections made for it
	Warm          time.Duration `json:"first_transfer_warm"` // one token over warm ones
}

func (o *TransferOptions) prepare() error {
	for _, name := range o.Formats {
		f, err := quant.ParseFormat(name, true)
		if err != nil {
			return err
		}
		g, err := quant.NewGeometry(f, o.Layers, o.KVHeads, o.Dim)
		if err != nil {
			return err
		}
		o.geometries = append(o.geometries, g)
	}
	return nil
}

// hello is the same on both sides: what is moved is nobody's model.
func (o *TransferOptions) hello(g *quant.Geometry, side string) transfer.Hello {
	return transfer.NewHello(side, "bench", "bench", "", g)
}

// pages make a view of n tokens, filled with noise: of cachegen, whose bytes depend on
// it, with tokens of channels that differ in size as a model's do.
func pages(g *quant.Geometry, n int) *quant.View {
	v := &quant.View{Geometry: g}
	r := rand.NewChaCha8([32]byte{1})
	count := n/g.Format.PageTokens + 1
	v.Exact, v.Coded = make([][]byte, count), make([][]byte, count)
	for _, p := range g.Format.Handover(n) {
		page, size := &v.Exact[p.Page], g.ExactPage()
		if p.Coded {
			page, size = &v.Coded[p.Page], g.CodedPage()
		}
		if *page == nil {
			*page = make([]byte, size)
			r.Read(*page)
		}
		if p.Coded && g.Packs() {
			levels(g, *page, rand.New(r))
		}
	}
	return v
}

// levels fills a coded page of cachegen.
func levels(g *quant.Geometry, page []byte, r *rand.Rand) {
	exact, v := make([]byte, g.ExactBytes()), quant.View{Geometry: g, Coded: [][]byte{page}}
	k, w := make([]float32, g.KVHeads*g.HeadDim), make([]float32, g.KVHeads*g.HeadDim)
	for layer := range g.Layers {
		for t := range g.Format.PageTokens {
			for c := range k {
				deviation := math.Exp2(float64(c%5) / 2)
				k[c], w[c] = float32(deviation*r.NormFloat64()), float32(deviation*r.NormFloat64())
			}
			g.PutExact(exact, t, k, w)
		}
		g.Encode(quant.EncodeArgs{Exact: exact, Coded: v.CodedLayer(0, layer), Layer: layer, Hi: g.Format.PageTokens})
	}
}

// bill is the sending side's answer: what it has spent since it started.
type bill struct {
	CPU   time.Duration
	Iperf string // port of its iperf3 server, "" for none
}

// ServeTransfers is the sending side: it listens on as many ports as there are
// formats, from addr's on, tells ready which is the first, and serves until ctx
// ends.
func ServeTransfers(ctx context.Context, addr string, o TransferOptions, ready func(addr string)) error {
	if err := o.prepare(); err != nil {
		return err
	}
	listeners, err := consecutive(addr, len(o.geometries), o.TLS)
	if err != nil {
		return err
	}
	if o.Iperf {
		stop, port := serveIperf(listeners[0].Addr())
		defer stop()
		o.iperfPort = port
	}
	var running sync.WaitGroup
	errs := make([]error, len(listeners))
	var views viewCache
	for i, l := range listeners {
		g := o.geometries[i]
		s := &transfer.Server{
			Hello: o.hello(g, "sender"), Geometry: g, Key: o.Key, Logger: slog.New(slog.DiscardHandler),
			Handler: func(_ context.Context, _ []byte, to *transfer.Sender) error {
				view := views.of(g, to.Tokens())
				for layer := range g.Layers {
					to.Written(layer, to.Tokens(), view)
				}
				spent, err := json.Marshal(bill{processTime(), o.iperfPort})
				if err != nil {
					return err
				}
				return to.Finish(spent)
			},
		}
		running.Go(func() { errs[i] = s.Serve(ctx, l) })
	}
	ready(listeners[0].Addr().String())
	running.Wait()
	return errors.Join(errs...)
}

// viewCache keeps the last view of one token and the last longer one:
// transfers of one format follow each other.
type viewCache struct {
	mu    sync.Mutex
	views [2]*quant.View
	n     int
}

func (c *viewCache) of(g *quant.Geometry, n int) *quant.View {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n == 1 {
		if c.views[0] == nil || c.views[0].Geometry != g {
			c.views[0] = pages(g, 1)
		}
		return c.views[0]
	}
	if c.views[1] == nil || c.views[1].Geometry != g || c.n != n {
		c.views[1], c.n = nil, n // the old one first: both may not fit
		c.views[1] = pages(g, n)
	}
	return c.views[1]
}

// consecutive listens on n ports in a row; with port 0, on any that are free.
func consecutive(addr string, n int, secure *tls.Config) ([]net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: write it as host:port: %w", addr, err)
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", addr, err)
	}
	for try := 0; ; try++ {
		base := first
		if first == 0 {
			base = 20000 + rand.IntN(40000)
		}
		var all []net.Listener
		for i := range n {
			l, lerr := tcp.Listen(net.JoinHostPort(host, strconv.Itoa(base+i)), secure)
			if err = lerr; err != nil {
				break
			}
			all = append(all, l)
		}
		if err == nil {
			return all, nil
		}
		for _, l := range all {
			l.Close()
		}
		if first != 0 || try == 20 {
			return nil, err
		}
	}
}

// receiver is the receiving side of one format.
type receiver struct {
	client *transfer.Client
	addr   string
	view   *quant.View
	n      int
	apart  bool // second planes come later
	row    TransferRow
	times  []float64
	begins []float64        // of apart
	began  time.Duration    // the last one of them
	spent  [2]time.Duration // by both processes while times were taken
}

// Transfer moves prompts from who serves at addr, formats in turns, and
// compares with iperf3.
func Transfer(ctx context.Context, addr string, o TransferOptions) (*TransferReport, error) {
	if err := o.prepare(); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %q: write it as host:port: %w", addr, err)
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %q: %w", addr, err)
	}
	r := &TransferReport{Link: addr, Tokens: o.Tokens, Conns: o.Conns, Shape: fmt.Sprintf("%d layers, %d KV heads of %d, %d tokens", o.Layers, o.KVHeads, o.Dim, o.Tokens)}
	var all []*receiver
	for i, g := range o.geometries {
		c := &transfer.Client{Hello: o.hello(g, "receiver"), Geometry: g, Dial: tcp.Dialer(o.TLS), Key: o.Key, Conns: o.Conns}
		defer c.Close()
		x := receiver{client: c, addr: net.JoinHostPort(host, strconv.Itoa(first+i)), n: o.Tokens, row: TransferRow{Format: o.Formats[i]}}
		all = append(all, &x)
		if o.Progressive && transfer.SecondBytes(g, o.Tokens) > 0 {
			apart := x
			apart.apart, apart.row.Format = true, x.row.Format+", apart"
			all = append(all, &apart)
		}
	}
	if err := r.latency(ctx, all[0], &o); err != nil {
		return nil, err
	}
	o.iperfServer = host
	if err := o.turns(ctx, r, all); err != nil {
		return nil, err
	}
	return r, nil
}

// latency measures the first transfer, of one token: cold, then over warm
// connections.
func (r *TransferReport) latency(ctx context.Context, x *receiver, o *TransferOptions) error {
	one := &receiver{client: x.client, addr: x.addr, n: 1, view: pages(x.client.Geometry, 1)}
	start := time.Now()
	b, _, err := one.fetch(ctx)
	if err != nil {
		return err
	}
	r.Cold = time.Since(start)
	o.iperfPort = b.Iperf
	if err := x.client.Warm(ctx, []string{x.addr}); err != nil {
		return err
	}
	var warm []float64
	for range 20 {
		start := time.Now()
		if _, _, err := one.fetch(ctx); err != nil {
			return err
		}
		warm = append(warm, float64(time.Since(start).Nanoseconds()))
	}
	r.Warm = sampleOf(warm).Median
	return nil
}

// turns times the formats and iperf3, each for as long as the others.
func (o *TransferOptions) turns(ctx context.Context, r *TransferReport, all []*receiver) error {
	var iperf []IperfRow
	slice := max(o.Time/time.Duration(fewest*(len(all)+1)), 100*time.Millisecond)
	for range fewest {
		if o.Iperf && o.iperfPort != "" {
			o.say("iperf3")
			row, err := o.runIperf(ctx, slice)
			if err != nil {
				return err
			}
			iperf = append(iperf, row)
		}
		for _, x := range all {
			o.say(x.row.Format)
			if err := x.round(ctx, slice); err != nil {
				return err
			}
		}
	}
	if len(iperf) > 0 {
		slices.SortFunc(iperf, func(a, b IperfRow) int { return int(1e6 * (a.Gbps - b.Gbps)) })
		r.Iperf = append(r.Iperf, iperf[len(iperf)/2])
	}
	for _, x := range all {
		r.Rows = append(r.Rows, x.result(r.Iperf))
	}
	return nil
}

func (o *TransferOptions) say(what string) {
	if o.Log != nil {
		o.Log(what)
	}
}

// round moves prompts for a while. The first is not counted: it pages memory in.
func (x *receiver) round(ctx context.Context, d time.Duration) error {
	x.view = pages(x.client.Geometry, x.n)
	defer func() { x.view = nil }()
	if err := x.client.Warm(ctx, []string{x.addr}); err != nil {
		return err
	}
	if _, _, err := x.fetch(ctx); err != nil {
		return err
	}
	theirs, err := x.bill(ctx)
	if err != nil {
		return err
	}
	mine := processTime()
	for start := time.Now(); time.Since(start) < d; {
		before := time.Now()
		_, res, err := x.fetch(ctx)
		if err != nil {
			return err
		}
		x.times = append(x.times, float64(time.Since(before).Nanoseconds()))
		x.begins = append(x.begins, float64(x.began.Nanoseconds()))
		x.row.Bytes, x.row.Second = res.Bytes, res.Second
	}
	x.spent[1] += processTime() - mine
	after, err := x.bill(ctx)
	x.spent[0] += after - theirs
	return err
}

// bill asks what the sending side has spent, by a transfer of one token.
func (x *receiver) bill(ctx context.Context) (time.Duration, error) {
	one := &receiver{client: x.client, addr: x.addr, n: 1, view: pages(x.client.Geometry, 1)}
	b, _, err := one.fetch(ctx)
	return b.CPU, err
}

func (x *receiver) fetch(ctx context.Context) (bill, transfer.Result, error) {
	f := x.client.Begin(x.view, x.n)
	defer f.End()
	start := time.Now()
	if x.apart {
		f.Apart()
	}
	res, err := f.From(ctx, x.addr, nil)
	if err == nil && x.apart {
		x.began = time.Since(start)
		res, err = f.Rest(ctx)
	}
	if err != nil {
		return bill{}, res, err
	}
	var b bill
	if err := json.Unmarshal(res.Done, &b); err != nil {
		return b, res, fmt.Errorf("cannot read the answer of %s: %w", x.addr, err)
	}
	return b, res, nil
}

func (x *receiver) result(iperf []IperfRow) TransferRow {
	row := x.row
	row.Time = sampleOf(x.times)
	if x.apart {
		row.Begin = sampleOf(x.begins)
	}
	seconds := row.Time.Median.Seconds()
	row.Gbps = 8e-9 * float64(row.Bytes) / seconds
	row.F16Gbps = 8e-9 * float64(transfer.F16Bytes(x.client.Geometry, x.n)) / seconds
	total := 0.0
	for _, t := range x.times {
		total += t / 1e9
	}
	row.SendCores, row.RecvCores = x.spent[0].Seconds()/total, x.spent[1].Seconds()/total
	if len(iperf) > 0 {
		row.OfIperf = row.Gbps / iperf[0].Gbps
	}
	return row
}
