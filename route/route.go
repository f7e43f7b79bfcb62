package route

import (
	"cmp"
	"fmt"
	"slices"

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
}

// Ask is what a request needs.
type Ask struct {
	PromptTokens int
	MaxTokens    int
	ScorePrompt  bool // prompt scores are wanted; they are made where the prompt is computed
	// LocalBelow keeps prompts with fewer tokens to compute on the decode
	// worker. 0 = DefaultLocalBelow, negative = split whatever can be split.
	LocalBelow int
	Exclude    []string // workers that failed this request
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
	Reason  string // for people and logs
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
	remaining := max(ask.PromptTokens-decode.CachedPrefix, 0)
	if why := staysBecause(ask, remaining); why != "" {
		return Decision{Decode: decode.ID, Reason: "stay: " + why}, nil
	}
	prefill := slices.DeleteFunc(usable, func(c Candidate) bool { return !canPrefillFor(c, decode, ask) })
	if len(prefill) == 0 {
		return Decision{Decode: decode.ID, Reason: "stay: no other worker prefills"}, nil
	}
	best := leastLoaded(prefill, ask.PromptTokens)
	d := Decision{
		Decode: decode.ID, Prefill: best.ID, Split: true,
		Reason: fmt.Sprintf("split: %d tokens to compute, %s", remaining, among(best, len(prefill))),
	}
	for next := best; len(d.Others) < maxOthers; {
		prefill = slices.DeleteFunc(prefill, func(c Candidate) bool { return c.ID == next.ID })
		if len(prefill) == 0 {
			break
		}
		next = leastLoaded(prefill, ask.PromptTokens)
		d.Others = append(d.Others, next.ID)
	}
	return d, nil
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

// byLoad orders by prompt tokens to compute until this prompt is done (the
// prompt itself is the same for all, what is held of it is not), then by
// requests not begun, then by those going on, then by ID.
func byLoad(a, b Candidate) int {
	return cmp.Or(
		cmp.Compare(a.WaitingTokens-a.CachedPrefix, b.WaitingTokens-b.CachedPrefix),
		cmp.Compare(a.Waiting, b.Waiting),
		cmp.Compare(a.Running, b.Running),
		cmp.Compare(a.ID, b.ID),
	)
}

// leastLoaded is the worker that has the prompt done first where the rates of
// all are known (machines differ), else the one with the least waiting.
func leastLoaded(list []Candidate, prompt int) Candidate {
	if slices.ContainsFunc(list, func(c Candidate) bool { return c.PrefillRate <= 0 }) {
		return slices.MinFunc(list, byLoad)
	}
	return slices.MinFunc(list, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(doneAfter(a, prompt), doneAfter(b, prompt)), byLoad(a, b))
	})
}

// doneAfter is when a worker would have the prompt computed, in seconds.
func doneAfter(c Candidate, prompt int) float64 {
	return float64(c.WaitingTokens+max(prompt-c.CachedPrefix, 0)) / c.PrefillRate
}

func among(best Candidate, n int) string {
	if n == 1 {
		return fmt.Sprintf("%q prefills", best.ID)
	}
	return fmt.Sprintf("%q is the least loaded of %d", best.ID, n)
}
