package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// ServeGenOptions choose what is drawn from a ServeGen directory.
type ServeGenOptions struct {
	Start    time.Duration // of the window of time that is drawn, in the recording
	Duration time.Duration // 0 = 10 minutes, one window of the recording
	Rate     float64       // requests a second over all clients; 0 = as recorded
	Seed     uint64
}

const (
	serveGenWindow = 10 * time.Minute
	maxDrawn       = 1 << 20
	maxFile        = 256 << 20 // bytes of one client's lengths
)

// ServeGen draws requests of all clients in dir (arXiv 2505.09999): every client
// has its own renewal process, Gamma or Weibull as fitted to the window of time,
// and its own lengths.
func ServeGen(dir fs.FS, name string, o ServeGenOptions) (*Workload, error) {
	if o.Duration == 0 {
		o.Duration = serveGenWindow
	}
	if o.Start < 0 || o.Duration < 0 || o.Duration > maxTime || o.Rate < 0 || math.IsNaN(o.Rate) || math.IsInf(o.Rate, 1) {
		return nil, errors.New("cannot draw from the recording: its window and rate cannot be negative")
	}
	traces, err := fs.Glob(dir, "chunk-*-trace.csv")
	if err != nil {
		return nil, err
	}
	if len(traces) == 0 {
		return nil, fmt.Errorf("cannot read the trace %s: a ServeGen directory has files chunk-N-trace.csv and chunk-N-dataset.json, and there are none", name)
	}
	clients := make([]*client, 0, len(traces))
	total := 0.0
	for _, trace := range traces {
		c, err := readClient(dir, trace, o)
		if err != nil {
			return nil, fmt.Errorf("cannot read the trace %s: %w", name, err)
		}
		if c != nil {
			clients = append(clients, c)
			total += c.rate
		}
	}
	if total == 0 {
		return nil, fmt.Errorf("cannot draw from %s: no client with lengths sends anything from %v on; choose another start", name, o.Start)
	}
	speed := 1.0
	if o.Rate > 0 {
		speed = o.Rate / total
	}
	if n := total * speed * o.Duration.Seconds(); n > maxDrawn {
		return nil, fmt.Errorf("cannot draw %.0f requests: give a lower rate or a shorter time (at most %d)", n, maxDrawn)
	}
	return draw(clients, name, speed, o), nil
}

func draw(clients []*client, name string, speed float64, o ServeGenOptions) *Workload {
	w := &Workload{Name: name, Arrivals: true, BlockTokens: blockTokens}
	for i, c := range clients {
		rng := rand.New(rand.NewPCG(o.Seed, uint64(i)))
		// A renewal process is entered at a random moment of its first interval.
		at := c.interval(rng) * rng.Float64() / speed
		for at < o.Duration.Seconds() && len(w.Requests) < 2*maxDrawn {
			w.Requests = append(w.Requests, Request{At: seconds(at), Input: c.input.draw(rng), Output: c.output.draw(rng)})
			at += c.interval(rng) / speed
		}
	}
	w.sort()
	return w
}

// client is one sender in one window of time.
type client struct {
	rate          float64 // requests a second
	weibull       bool    // otherwise Gamma
	shape, scale  float64 // of the intervals; scale in seconds
	input, output histogram
}

// readClient is nil for a client that sends nothing then, or whose lengths are
// not known.
func readClient(dir fs.FS, trace string, o ServeGenOptions) (*client, error) {
	c, err := readWindow(dir, trace, o.Start)
	if err != nil || c == nil {
		return nil, err
	}
	lengths := strings.TrimSuffix(trace, "-trace.csv") + "-dataset.json"
	f, err := dir.Open(lengths)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: over %d bytes", lengths, maxFile)
	}
	if c.input, c.output, err = readLengths(data, o.Start); err != nil {
		return nil, fmt.Errorf("%s: %w", lengths, err)
	}
	if len(c.input.upTo) == 0 || len(c.output.upTo) == 0 {
		return nil, nil
	}
	return c, nil
}

// readWindow finds the row of start in a client's trace:
// start,rate,cv,pattern,shape,scale.
func readWindow(dir fs.FS, trace string, start time.Duration) (found *client, err error) {
	f, err := dir.Open(trace)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = rows(f, func(_ int, line []byte) error {
		fields := strings.Split(string(line), ",")
		if len(fields) != 6 {
			return fmt.Errorf("%d fields: want start,rate,cv,pattern,shape,scale", len(fields))
		}
		at, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return err
		}
		from, err := checkTime(at)
		if err != nil || start < from || start >= from+serveGenWindow || fields[3] == "" {
			return err
		}
		found, err = parseClient(fields)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", trace, err)
	}
	return found, nil
}

func parseClient(fields []string) (*client, error) {
	c := &client{weibull: fields[3] == "Weibull"}
	if !c.weibull && fields[3] != "Gamma" {
		return nil, fmt.Errorf("pattern %q: want Gamma or Weibull", fields[3])
	}
	for _, v := range []struct {
		to   *float64
		from string
		what string
	}{{&c.rate, fields[1], "rate"}, {&c.shape, fields[4], "shape"}, {&c.scale, fields[5], "scale"}} {
		x, err := strconv.ParseFloat(v.from, 64)
		if err != nil || !(x > 0 && x < 1e9) {
			return nil, fmt.Errorf("%s is %q: it must be a positive number", v.what, v.from)
		}
		*v.to = x
	}
	return c, nil
}

// interval draws the seconds to the next request.
func (c *client) interval(rng *rand.Rand) float64 {
	var x float64
	if c.weibull {
		x = c.scale * math.Pow(rng.ExpFloat64(), 1/c.shape)
	} else {
		x = c.scale * gamma(rng, c.shape)
	}
	// An interval of nothing would never end; one of years is as good as none.
	return min(max(x, 1e-6), maxTime.Seconds())
}

// gamma draws from the Gamma distribution of scale 1 (Marsaglia and Tsang 2000).
func gamma(rng *rand.Rand, shape float64) float64 {
	if shape < 1 {
		return gamma(rng, shape+1) * math.Pow(rng.Float64(), 1/shape)
	}
	d := shape - 1.0/3
	k := 1 / math.Sqrt(9*d)
	for {
		x := rng.NormFloat64()
		v := 1 + k*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-rng.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

// histogram is how many tokens requests have: tokens[i] at the share from
// upTo[i-1] to upTo[i].
type histogram struct {
	tokens []int
	upTo   []float64 // rising
}

func (h histogram) draw(rng *rand.Rand) int {
	x := rng.Float64() * h.upTo[len(h.upTo)-1]
	i := sort.SearchFloat64s(h.upTo, x)
	return max(1, h.tokens[min(i, len(h.tokens)-1)])
}

// readLengths reads {start: {field: "{tokens: share, …}"}} and takes the last
// window that begins by start.
func readLengths(data []byte, start time.Duration) (input, output histogram, err error) {
	var windows map[string]map[string]string
	if err := json.Unmarshal(data, &windows); err != nil {
		return input, output, err
	}
	best, fields := time.Duration(-1), map[string]string(nil)
	for at, f := range windows {
		s, err := strconv.ParseFloat(at, 64)
		if err != nil {
			return input, output, fmt.Errorf("window %q: want seconds", at)
		}
		from, err := checkTime(s)
		if err != nil {
			return input, output, err
		}
		if from <= start && from > best {
			best, fields = from, f
		}
	}
	text := fields["input_tokens"]
	if text == "" {
		text = fields["text_tokens"] // of the multimodal services
	}
	if input, err = parseHistogram(text); err != nil {
		return input, output, fmt.Errorf("input_tokens: %w", err)
	}
	if output, err = parseHistogram(fields["output_tokens"]); err != nil {
		return input, output, fmt.Errorf("output_tokens: %w", err)
	}
	return input, output, nil
}

// parseHistogram reads {104: 0.25, 313: 0.75}, a Python literal.
func parseHistogram(s string) (h histogram, err error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return h, nil
	}
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return h, errors.New("a histogram must be written as {tokens: share, …}")
	}
	inner := s[1 : len(s)-1]
	if strings.TrimSpace(inner) == "" {
		return h, nil
	}
	sum := 0.0
	for item := range strings.SplitSeq(inner, ",") {
		key, value, _ := strings.Cut(item, ":")
		n, err := parseTokens("a bin", strings.TrimSpace(key))
		if err != nil {
			return h, err
		}
		share, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(share >= 0 && share <= 1e9) {
			return h, fmt.Errorf("the share of %d tokens is %q", n, strings.TrimSpace(value))
		}
		sum += share
		h.tokens, h.upTo = append(h.tokens, n), append(h.upTo, sum)
	}
	if sum == 0 {
		return histogram{}, nil
	}
	h.tokens, h.upTo = slices.Clip(h.tokens), slices.Clip(h.upTo)
	return h, nil
}
