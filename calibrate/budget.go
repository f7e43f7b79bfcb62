package calibrate

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
)

// Part is what one part of a calibration buys: what a way to code K does to
// attention in the mean over layers and heads, and what it takes.
type Part struct {
	Name       string
	Format     string  // as ParseFormat reads it; empty where there is none
	Bits       float64 // per element of K and V, V at 2 bits
	Divergence float64 // KL of attention weights, nats
}

// probeTokens is how much text is measured on, of which no window has more than
// probeWindow: attention's work grows with the square.
const (
	probeTokens = 8192
	probeWindow = 2048
)

// leadingDeviation is the leading channels' deviation, as a part of the others',
// around which gains are tried: 4-bit codes that share a scale span 15 quarters of
// the step of 2-bit codes, which is about the others' deviation.
const leadingDeviation = 0.65

var gains = []float32{0.7, 1, 1.4}

// Budget measures what coding K does to attention, chooses the gains of its leading
// channels and how many of them each layer has in 4 bits, within a mean of budget
// bits per element of K and V, and writes both into cal, which must have a basis. It
// tells what every part buys. HeadQ (arXiv 2605.03562) is measured beside: the error of
// K in the first principal components of the queries, kept beside the codes in 8 bits
// each and a scale, and added to the scores.
func Budget(ctx context.Context, m *model.Model, cal *quant.Calibration, windows [][]terse.Token, budget float64, progress func(done float64)) ([]Part, error) {
	if cal.KBasis == nil || cal.HeadDim <= 16 {
		return nil, fmt.Errorf("cannot spread a budget over K's channels: it wants a basis and a head_dim above 16")
	}
	f, err := quant.ParseFormat("hq2b", true)
	if err != nil {
		return nil, err
	}
	t := &table{cal: cal, format: f, leads: quant.Leadings(cal.HeadDim), gains: make([]float32, cal.Layers*cal.KVHeads*((cal.HeadDim-1)/16))}
	if least := t.bits(0); budget < least {
		return nil, fmt.Errorf("cannot spread %g bits per element: codes without a second plane take %.4g", budget, least)
	}
	probes, err := newProbes(m, windows, func(done float64) { progress(0.1 * done) })
	if err != nil {
		return nil, err
	}
	ways := func(layer, head int) []way { return t.ways(layer, head, probes) }
	if t.measured, err = measured(ctx, m.Ops(), probes, cal, ways, func(done float64) { progress(0.1 + 0.9*done) }); err != nil {
		return nil, err
	}
	t.chooseGains()
	t.record()
	if cal.KPlan, err = t.plan(budget); err != nil {
		return nil, err
	}
	return t.parts(budget)
}

// newProbes runs some of the windows exactly, the longest first.
func newProbes(m *model.Model, windows [][]terse.Token, progress func(done float64)) ([]*probe, error) {
	exact, err := quant.ParseFormat("f16", false)
	if err != nil {
		return nil, err
	}
	g, err := m.Config.Geometry(exact)
	if err != nil {
		return nil, err
	}
	var probes []*probe
	left := probeTokens
	longest := slices.SortedStableFunc(slices.Values(windows), func(a, b []terse.Token) int { return len(b) - len(a) })
	for _, w := range longest {
		w = w[:min(len(w), probeWindow, left)]
		if len(w) <= 2*queryEvery {
			break
		}
		p, err := newProbe(m, g, w)
		if err != nil {
			return nil, err
		}
		probes, left = append(probes, p), left-len(w)
		progress(1 - float64(left)/probeTokens)
	}
	if len(probes) == 0 {
		return nil, fmt.Errorf("cannot measure on windows of at most %d tokens: give a longer text", 2*queryEvery)
	}
	return probes, nil
}

// Ways that are measured, before those with leading channels.
const (
	wayPlain = iota
	wayMeans
	wayNorms
	wayQuarter
	wayRanks
)

// table is what was measured.
type table struct {
	cal      *quant.Calibration
	format   quant.Format // a planned one
	leads    []int        // numbers of leading channels: 0, 16, …, head_dim
	gains    []float32    // tried first: [layer × KV head][leads without the ends]
	measured [][]float64  // [layer × KV head][way]
	choice   [][]int      // [layer × KV head][leads] the way with the best gain
}

// ways are all that is measured of a layer and head.
func (t *table) ways(layer, head int, probes []*probe) []way {
	all := []way{{format: "hq2,mean=off,norm=off"}, {format: "hq2,norm=off"}, {format: "hq2"}, {format: "hq2+"}}
	for _, rank := range quant.HeadRanks() {
		all = append(all, way{format: "hq2,basis=balanced", rank: rank})
	}
	all = append(all, way{format: "hq2,basis=balanced"})
	inner := t.leads[1 : len(t.leads)-1]
	at := (layer*t.cal.KVHeads + head) * len(inner)
	balance(t.gains[at:at+len(inner)], inner, variances(probes, t.cal, layer, head))
	for i, n := range inner {
		for _, gain := range gains {
			all = append(all, way{format: fmt.Sprintf("hq2,basis=balanced,k2=shared:%d", n), gain: gain * t.gains[at+i]})
		}
	}
	return append(all, way{format: "hq3,basis=balanced"})
}

// first is the way from which on those of leads[i] lie.
func (t *table) first(i int) int {
	none := wayRanks + len(quant.HeadRanks())
	if i == 0 {
		return none
	}
	return none + 1 + (i-1)*len(gains)
}

// variances are those of K's channels in the balanced basis.
func variances(probes []*probe, cal *quant.Calibration, layer, head int) []float64 {
	d, kg := cal.HeadDim, cal.KVHeads
	at := layer*kg + head
	basis, mean := cal.KBasis[at*d*d:(at+1)*d*d], cal.KMean[at*d:(at+1)*d]
	out, x := make([]float64, d), make([]float32, d)
	for _, p := range probes {
		for tok := range p.tokens {
			for c, k := range p.k[layer][(tok*kg+head)*d:][:d] {
				x[c] = k - mean[c]
			}
			for c := range d {
				y := dot(basis[c*d:(c+1)*d], x)
				out[c] += y * y
			}
		}
	}
	return out
}

// balance sets gains to those that make the deviation of the leading channels, as
// many as leads says, a certain part of the others'.
func balance(gains []float32, leads []int, variances []float64) {
	for i, n := range leads {
		var lead, rest float64
		for c, v := range variances {
			if c < n {
				lead += v / float64(n)
			} else {
				rest += v / float64(len(variances)-n)
			}
		}
		gains[i] = 1
		if lead > 0 && rest > 0 {
			gains[i] = float32(min(max(leadingDeviation*math.Sqrt(rest/lead), 0.01), 100))
		}
	}
}

// chooseGains takes, for each number of leading channels, the gain that does least
// to attention.
func (t *table) chooseGains() {
	inner := len(t.leads) - 2
	for at, row := range t.measured {
		choice := make([]int, len(t.leads))
		for i := range t.leads {
			choice[i] = t.first(i)
			if i == 0 || i > inner {
				continue
			}
			for k := range gains {
				if row[t.first(i)+k] < row[choice[i]] {
					choice[i] = t.first(i) + k
				}
			}
			t.gains[at*inner+i-1] *= gains[choice[i]-t.first(i)]
		}
		t.choice = append(t.choice, choice)
	}
	t.cal.KGain = t.gains
}

// divergence is what leads[i] leading channels in 4 bits do in one layer, the sum
// over its heads.
func (t *table) divergence(layer, i int) (sum float64) {
	for at := layer * t.cal.KVHeads; at < (layer+1)*t.cal.KVHeads; at++ {
		sum += t.measured[at][t.choice[at][i]]
	}
	return sum
}

// bits is what a layer with leads[i] leading channels takes per element.
func (t *table) bits(i int) float64 {
	return float64(8*quant.PlannedBytes(t.format, t.leads[i], t.cal.HeadDim)) / float64(2*t.format.PageTokens*t.cal.HeadDim)
}

// bitsOf is what a format takes per element.
func bitsOf(format string, d int) float64 {
	f, err := quant.ParseFormat(format, true)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	g, err := quant.NewGeometry(f, 1, 1, d)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return float64(8*g.CodedBytes()) / float64(2*f.PageTokens*d)
}

// record writes what was measured into the calibration.
func (t *table) record() {
	heads := float64(t.cal.KVHeads)
	t.cal.KHarm, t.cal.HeadQ = nil, nil
	for layer := range t.cal.Layers {
		for i := range t.leads {
			t.cal.KHarm = append(t.cal.KHarm, float32(t.divergence(layer, i)/heads))
		}
		t.cal.HeadQ = append(t.cal.HeadQ, 0)
		for i := range quant.HeadRanks() {
			sum := 0.0
			for _, row := range t.measured[layer*t.cal.KVHeads : (layer+1)*t.cal.KVHeads] {
				sum += row[wayRanks+i]
			}
			t.cal.HeadQ = append(t.cal.HeadQ, float32(sum/heads))
		}
	}
}

// plan is the leading channels of every layer within a budget.
func (t *table) plan(budget float64) ([]uint16, error) {
	f := t.format
	f.Budget = int(math.Round(1000 * budget))
	return t.cal.Plan(f)
}

// parts is what every part of the calibration buys, and some budgets beside.
func (t *table) parts(budget float64) ([]Part, error) {
	d, none := t.cal.HeadDim, t.first(0)
	part := func(name string, way int, format string) Part {
		sum := 0.0
		for _, row := range t.measured {
			sum += row[way]
		}
		return Part{name, format, bitsOf(format, d), sum / float64(len(t.measured))}
	}
	parts := []Part{
		part("rotation and clip", wayPlain, "hq2,mean=off,norm=off"),
		part("and means", wayMeans, "hq2,norm=off"),
		part("and norms", wayNorms, "hq2"),
		part("and the balanced basis", none, "hq2,basis=balanced"),
		part("and a quarter of K's channels in 4 bits", wayQuarter, "hq2+"),
	}
	mean := func(lead func(layer int) int) (bits, divergence float64) {
		for layer := range t.cal.Layers {
			i := lead(layer)
			bits += t.bits(i) / float64(t.cal.Layers)
			divergence += t.divergence(layer, i) / float64(len(t.measured))
		}
		return bits, divergence
	}
	for i := 1; i < len(t.leads)-1; i++ {
		bits, divergence := mean(func(int) int { return i })
		parts = append(parts, Part{fmt.Sprintf("and %d of them, sharing the scale", t.leads[i]), fmt.Sprintf("hq2,basis=balanced,k2=shared:%d", t.leads[i]), bits, divergence})
	}
	for _, more := range []float64{0, -0.125, 0.125, 0.25} {
		plan, err := t.plan(budget + more)
		switch {
		case more != 0 && (err != nil || slices.Equal(plan, t.cal.KPlan)):
			continue // too little, or no other plan
		case err != nil:
			return nil, err
		}
		p := Part{Name: "and by layers, within the budget", Format: "hq2b"}
		if more != 0 {
			p.Name, p.Format = fmt.Sprintf("the same within %g bits", budget+more), fmt.Sprintf("hq2b,budget=%g", budget+more)
		}
		p.Bits, p.Divergence = mean(func(layer int) int { return slices.Index(t.leads, int(plan[layer])) })
		parts = append(parts, p)
	}
	parts = append(parts, part("all of K's channels in 4 bits", t.first(len(t.leads)-1), "hq3,basis=balanced"))
	for i, rank := range quant.HeadRanks() {
		p := part(fmt.Sprintf("HeadQ of rank %d instead of channels in 4 bits", rank), wayRanks+i, "hq2,basis=balanced")
		p.Format, p.Bits = "", p.Bits+float64(8*rank+16)/float64(2*d)
		parts = append(parts, p)
	}
	return parts, nil
}
