package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/session"
	"github.com/terse-llm/terse/quant"
)

// ModelOptions say what to time of a model.
type ModelOptions struct {
	Model       *model.Model
	Calibration *quant.Calibration // nil for none
	Formats     []string           // of the KV cache
	Prompts     []int              // lengths to prefill
	Depths      []int              // tokens in the cache before decoding, rounded to whole pages
	Steps       int                // tokens decoded in a round
	Rounds      int
	Chunk       int          // tokens of one step of a prefill
	Log         func(string) // is told what is being timed; may be nil
}

// ModelRow is one speed of a model.
type ModelRow struct {
	Format string `json:"kv"`
	Test   string `json:"test"`   // prefill or decode
	Tokens int    `json:"tokens"` // prefill: of the prompt; decode: in the cache before
	// Rate is tokens a second: the median, and the quartiles.
	Rate    float64       `json:"tokens_per_s"`
	Low     float64       `json:"quartile1"`
	High    float64       `json:"quartile3"`
	Median  time.Duration `json:"median_ns"` // of a prompt or of a token
	Samples int           `json:"samples"`
	Coding  float64       `json:"coding"`      // prefill: the share of the time spent on storing and coding K and V
	Allocs  int           `json:"allocations"` // of a decode step, on average
}

// ModelReport is what a run of Decode found.
type ModelReport struct {
	Machine Machine    `json:"machine"`
	Name    string     `json:"model"`
	Rows    []ModelRow `json:"rows"`
}

// seedTokens are computed in earnest before a text is repeated to its depth.
const seedTokens = 256

// Model times prefill and decode. Prompts are random tokens. Depth comes from
// repeating the pages of a short text, which takes as long to attend to as any
// other. All formats and lengths take turns in each round. Nothing is sampled: a
// decode step ends with the logits.
func Model(ctx context.Context, o ModelOptions) (*ModelReport, error) {
	r := &ModelReport{}
	if err := o.prefills(ctx, r); err != nil {
		return nil, err
	}
	return r, o.decodes(ctx, r)
}

func (o *ModelOptions) session(format string, most int) (*session.Session, error) {
	f, err := quant.ParseFormat(format, o.Calibration != nil)
	if err != nil {
		return nil, err
	}
	g, err := o.Model.Config.CalibratedGeometry(f, o.Calibration)
	if err != nil {
		return nil, err
	}
	return session.New(o.Model, g, o.Calibration, most)
}

// text is n random tokens.
func (o *ModelOptions) text(n int) []terse.Token {
	r := rand.New(rand.NewPCG(1, 1))
	ids := make([]terse.Token, n)
	for i := range ids {
		ids[i] = terse.Token(r.IntN(o.Model.Config.VocabSize))
	}
	return ids
}

func (o *ModelOptions) log(format string, args ...any) {
	if o.Log != nil {
		o.Log(fmt.Sprintf(format, args...))
	}
}

// prefill runs a prompt in chunks; the last one gives the logits of its last
// token.
func (o *ModelOptions) prefill(ctx context.Context, s *session.Session, ids []terse.Token) error {
	for len(ids) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, want := min(o.Chunk, len(ids)), session.NoLogits
		if n == len(ids) {
			want = session.LastLogits
		}
		if _, err := s.Forward(ids[:n], want); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

func (o *ModelOptions) prefills(ctx context.Context, r *ModelReport) error {
	type key struct {
		format string
		n      int
	}
	times, coding := map[key][]float64{}, map[key]time.Duration{}
	for round := range o.Rounds {
		for _, n := range o.Prompts {
			for _, format := range o.Formats {
				o.log("round %d of %d: prefill of %d tokens, %s", round+1, o.Rounds, n, format)
				s, err := o.session(format, n)
				if err != nil {
					return err
				}
				s.Prompt(n)
				if round == 0 { // warms up what is allocated and mapped at first use
					if err := o.prefill(ctx, s, o.text(min(n, 32))); err != nil {
						return err
					}
					if s, err = o.session(format, n); err != nil {
						return err
					}
					s.Prompt(n)
				}
				start := time.Now()
				if err := o.prefill(ctx, s, o.text(n)); err != nil {
					return err
				}
				k := key{format, n}
				times[k] = append(times[k], float64(time.Since(start).Nanoseconds()))
				coding[k] += s.Stats().Quantise
			}
		}
	}
	for _, n := range o.Prompts {
		for _, format := range o.Formats {
			k := key{format, n}
			row := rowOf(format, "prefill", n, n, times[k])
			for _, t := range times[k] {
				row.Coding += t
			}
			row.Coding = float64(coding[k]) / row.Coding
			r.Rows = append(r.Rows, row)
		}
	}
	return nil
}

// rowOf turns the times of runs of count tokens into rates.
func rowOf(format, test string, tokens, count int, times []float64) ModelRow {
	s := sampleOf(times)
	rate := func(d time.Duration) float64 { return float64(count) / d.Seconds() }
	return ModelRow{Format: format, Test: test, Tokens: tokens, Median: s.Median, Samples: s.Rounds,
		Rate: rate(s.Median), Low: rate(s.High), High: rate(s.Low)}
}

// decoding is one text in progress.
type decoding struct {
	session *session.Session
	format  string
	depth   int
	times   []float64
	allocs  uint64
	steps   int
}

func (o *ModelOptions) decodes(ctx context.Context, r *ModelReport) error {
	var all []*decoding
	for _, depth := range o.Depths {
		for _, format := range o.Formats {
			o.log("filling the cache with %d tokens, %s", depth, format)
			d, err := o.decoding(ctx, format, depth)
			if err != nil {
				return err
			}
			all = append(all, d)
		}
	}
	runtime.GC()
	for round := range o.Rounds {
		for _, d := range all {
			o.log("round %d of %d: decoding at %d tokens, %s", round+1, o.Rounds, d.depth, d.format)
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := d.step(o.Steps); err != nil {
				return err
			}
		}
	}
	for _, d := range all {
		row := rowOf(d.format, "decode", d.depth, 1, d.times)
		row.Allocs = int(d.allocs) / d.steps // what the runtime does now and then is less than one
		r.Rows = append(r.Rows, row)
	}
	return nil
}

// decoding fills a cache to a depth.
func (o *ModelOptions) decoding(ctx context.Context, format string, depth int) (*decoding, error) {
	s, err := o.session(format, max(depth, seedTokens)+o.Rounds*(o.Steps+warmSteps))
	if err != nil {
		return nil, err
	}
	page := s.View().Geometry.Format.PageTokens
	depth = depth / page * page
	if err := o.prefill(ctx, s, o.text(min(depth, max(seedTokens, 2*page)))); err != nil {
		return nil, err
	}
	if depth > s.Len() {
		if err := s.Repeat(depth); err != nil {
			return nil, err
		}
	}
	return &decoding{session: s, format: format, depth: depth}, nil
}

// warmSteps of a round are not counted: another text was in the caches.
const warmSteps = 1

// step decodes n tokens.
func (d *decoding) step(n int) error {
	id := []terse.Token{1}
	for range warmSteps {
		if _, err := d.session.Forward(id, session.LastLogits); err != nil {
			return err
		}
	}
	d.times = append(make([]float64, 0, len(d.times)+n), d.times...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		start := time.Now()
		if _, err := d.session.Forward(id, session.LastLogits); err != nil {
			return err
		}
		d.times = append(d.times, float64(time.Since(start).Nanoseconds()))
	}
	runtime.ReadMemStats(&after)
	d.allocs, d.steps = d.allocs+after.Mallocs-before.Mallocs, d.steps+n
	return nil
}
