package route

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/terse-llm/terse"
)

// Candidate is a worker as routing sees it.
type Candidate struct {
	ID   string
	Role terse.Role

	Model       string // for messages; ModelHash is what counts
	ModelHash   string
	Calibration string
	Format      string
	MaxContext  int // tokens; 0 = not known

	Running       int     // requests in a batch
	Waiting       int     // requests queued
	WaitingTokens int     // prompt tokens accepted and not yet computed
	PrefillRate   float64 // tokens/s; 0 = not known
	CachedPrefix  int     // tokens of this prompt whose KV the worker holds

	// What a prompt's KV is on the wire: so many bytes, and so many for a token.
	// Of those of a token, KVSecond are second planes, which may come apart.
	KVFixed, KVPerToken, KVSecond float64
	Progressive                   Progressive        // as a decode worker was told
	Links                         map[string]float64 // bytes/s at which KV came here lately, by the prefill worker's ID
}

// Ask is what a request needs.
type Ask struct {
	PromptTokens int
	MaxTokens    int
	Output       int  // tokens that it will likely generate; 0 = not known
	ScorePrompt  bool // prompt scores are wanted; they are made where the prompt is computed
	Resumed      bool // a lost worker has generated a part: the rest is computed where it is decoded
	// LocalBelow keeps prompts with fewer tokens to compute on the decode
	// worker. 0 = DefaultLocalBelow, negative = split whatever can be split.
	LocalBelow int
	Exclude    []string      // workers that failed this request
	Prefer     []string      // decode workers that hold a replica of it
	TTFT       time.Duration // time to the first token that is asked for; 0 = none
}

// DefaultLocalBelow is one page of 64 tokens and the exact windows of 64 and
// 128 around it: below it the cache has no coded page to save anything on.
const DefaultLocalBelow = 64 + 64 + 128

// Decision is where a request runs.
type Decision struct {
	Decode  string   // worker ID
	Prefill string   // worker ID where Split, else ""
	Others  []string // that could prefill instead, the best first
	Split   bool
	Reason  string // for people and logs; its first clause has few values

	// Apart says, of a split request, that second planes are to come apart from the
	// rest, and Planes why, or why not; its first clause has few values.
	Apart  bool
	Planes string

	// First is when the first token is expected; 0 where nothing is measured.
	First time.Duration
	// Stay and Ahead are the costs that were compared: of computing the prompt
	// where it is decoded, and of the best worker that could compute it instead;
	// both 0 where they were not. They count the seconds until the first token and
	// those by which other requests are held up meanwhile.
	Stay, Ahead time.Duration
}

// Decide picks the workers. Its errors are *terse.Error: CodeNoWorker,
// CodeMismatch or CodeContextLength. Equal input gives equal output, in
// whatever order the members come.
func Decide(members []Candidate, ask Ask) (Decision, error) {
	usable := slices.DeleteFunc(slices.Clone(members), func(c Candidate) bool { return slices.Contains(ask.Exclude, c.ID) })
	slices.SortFunc(usable, func(a, b Candidate) int { return cmp.Compare(a.ID, b.ID) })
	if err := agree(usable); err != nil {
		return Decision{}, err
	}
	decode, err := pickDecode(usable, ask)
	if err != nil {
		return Decision{}, err
	}
	if why := staysBecause(ask, remaining(ask.PromptTokens, decode)); why != "" {
		return stay(decode, ask, why), nil
	}
	prefill := slices.DeleteFunc(usable, func(c Candidate) bool { return !canPrefillFor(c, decode, ask) })
	if len(prefill) == 0 {
		return stay(decode, ask, "no other worker prefills"), nil
	}
	order(prefill, decode, ask)
	return compare(prefill, decode, ask), nil
}

// stay is a decision that needs no comparison.
func stay(decode Candidate, ask Ask, why string) Decision {
	d := Decision{Decode: decode.ID, Reason: "stay: " + why}
	if decode.PrefillRate > 0 {
		d.First = duration(staying(decode, ask, decode.PrefillRate).first)
	}
	return d
}

// compare decides between the best of prefill and the decode worker itself.
func compare(prefill []Candidate, decode Candidate, ask Ask) Decision {
	best := prefill[0]
	d := Decision{
		Decode: decode.ID, Prefill: best.ID, Split: true,
		Reason: fmt.Sprintf("split: not measured yet, %d tokens to compute, %s", remaining(ask.PromptTokens, decode), among(best, len(prefill))),
	}
	for _, c := range prefill[1:min(len(prefill), 1+maxOthers)] {
		d.Others = append(d.Others, c.ID)
	}
	here, there := rateOf(decode, best), rateOf(best, decode)
	d.Apart, d.Planes = planes(best, decode, ask, there)
	if here <= 0 {
		return d
	}
	whole, split := staying(decode, ask, here), splitting(best, decode, ask, there, d.Apart)
	stay, ahead := duration(whole.cost), duration(split.cost)
	switch {
	case ask.LocalBelow < 0:
		d.Reason = fmt.Sprintf("split: told to, %s", among(best, len(prefill)))
	case stay < ahead:
		return Decision{
			Decode: decode.ID, First: duration(whole.first), Stay: stay, Ahead: ahead,
			Reason: fmt.Sprintf("stay: faster, %s against %s by %q", short(whole.cost), short(split.cost), best.ID),
		}
	default:
		d.Reason = fmt.Sprintf("split: faster, %s against %s, %s", short(split.cost), short(whole.cost), among(best, len(prefill)))
	}
	d.First, d.Stay, d.Ahead = duration(split.first), stay, ahead
	return d
}

// maxOthers bounds the workers that a prompt is turned to when its prefill
// fails; more failures than that are no accident.
const maxOthers = 2

// agree refuses members with different models, calibrations or formats.
func agree(members []Candidate) error {
	for i := 1; i < len(members); i++ {
		if what := Difference(members[0], members[i]); what != "" {
			return &terse.Error{Code: terse.CodeMismatch, Message: fmt.Sprintf(
				"cannot route between workers that do not match: %s; restart one of them, or give it a cluster name of its own", what)}
		}
	}
	return nil
}

// Difference names two workers and the first thing that keeps them from
// sharing KV; "" when nothing does.
func Difference(a, b Candidate) string {
	differ := func(what, av, bv string) string {
		return fmt.Sprintf("worker %q has %s %s, worker %q has %s", a.ID, what, orNone(av), b.ID, orNone(bv))
	}
	switch {
	case a.ModelHash != b.ModelHash:
		return differ("model", a.Model+" ("+orNone(a.ModelHash)+")", b.Model+" ("+orNone(b.ModelHash)+")")
	case a.Format != b.Format:
		return differ("KV format", a.Format, b.Format)
	case a.Calibration != b.Calibration:
		return differ("calibration", a.Calibration, b.Calibration)
	}
	return ""
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func pickDecode(usable []Candidate, ask Ask) (Candidate, error) {
	decoders := slices.DeleteFunc(slices.Clone(usable), func(c Candidate) bool { return !c.Role.Decodes() })
	if len(decoders) == 0 {
		return Candidate{}, noDecoder(len(usable), ask.Exclude)
	}
	need := ask.PromptTokens + min(ask.MaxTokens, 1)
	fitting := slices.DeleteFunc(slices.Clone(decoders), func(c Candidate) bool { return c.MaxContext > 0 && c.MaxContext < need })
	if len(fitting) == 0 {
		longest := slices.MaxFunc(decoders, func(a, b Candidate) int { return cmp.Compare(a.MaxContext, b.MaxContext) })
		return Candidate{}, &terse.Error{Code: terse.CodeContextLength, Message: fmt.Sprintf(
			"a prompt of %d tokens and %d to generate at least need more than the longest context of a worker: %d tokens (%q)",
			ask.PromptTokens, min(ask.MaxTokens, 1), longest.MaxContext, longest.ID)}
	}
	if holding := slices.DeleteFunc(slices.Clone(fitting), func(c Candidate) bool { return !slices.Contains(ask.Prefer, c.ID) }); len(holding) > 0 {
		fitting = holding
	}
	return slices.MinFunc(fitting, byLoad), nil
}

func noDecoder(others int, excluded []string) error {
	message := "no worker has joined: start one with terse worker"
	switch {
	case len(excluded) > 0:
		message = fmt.Sprintf("no decode worker is left but those that failed this request: %q", excluded)
	case others > 0:
		message = fmt.Sprintf("no decode worker has joined, only prefill (%d): start one with terse worker --role decode", others)
	}
	return &terse.Error{Code: terse.CodeNoWorker, Message: message}
}

// staysBecause is why a request is not worth a split, or "".
func staysBecause(ask Ask, remaining int) string {
	below := ask.LocalBelow
	if below == 0 {
		below = DefaultLocalBelow
	}
	switch {
	case ask.MaxTokens == 0:
		return "nothing to decode"
	case ask.ScorePrompt:
		return "the prompt's scores are wanted"
	case ask.Resumed:
		return "goes on after a lost worker"
	case remaining < below:
		return fmt.Sprintf("%d tokens to compute, fewer than %d", remaining, below)
	}
	return ""
}

func canPrefillFor(c, decode Candidate, ask Ask) bool {
	if c.ID == decode.ID || c.MaxContext > 0 && c.MaxContext < ask.PromptTokens {
		return false
	}
	return c.Role == terse.RolePrefill || c.Role == terse.RoleBoth && decode.Role == terse.RoleDecode
}

// busy is the load of a worker in tokens to compute until this prompt is done:
// the prompt itself is the same for all, what is held of it is not. A request
// that runs counts as a page, for its row in every step and the memory it holds;
// one that waits as four, for it says that places or memory are out.
func busy(c Candidate) int {
	return c.WaitingTokens - c.CachedPrefix + runningTokens*c.Running + waitingTokens*c.Waiting
}

const (
	runningTokens = 64
	waitingTokens = 256
)

func byLoad(a, b Candidate) int {
	return cmp.Or(cmp.Compare(busy(a), busy(b)), cmp.Compare(a.ID, b.ID))
}

// order puts the workers that could compute a prompt for decode in order, the
// best first: where the rates of all are known (machines and links differ), the
// one that has it done and moved first, else the one with the least to do.
func order(list []Candidate, decode Candidate, ask Ask) {
	if slices.ContainsFunc(list, func(c Candidate) bool { return c.PrefillRate <= 0 }) {
		slices.SortFunc(list, byLoad)
		return
	}
	slices.SortFunc(list, func(a, b Candidate) int {
		x, y := splitting(a, decode, ask, a.PrefillRate, false), splitting(b, decode, ask, b.PrefillRate, false)
		return cmp.Or(cmp.Compare(x.cost, y.cost), byLoad(a, b))
	})
}

func among(best Candidate, n int) string {
	if n == 1 {
		return fmt.Sprintf("%q prefills", best.ID)
	}
	return fmt.Sprintf("%q is the best of %d", best.ID, n)
}
