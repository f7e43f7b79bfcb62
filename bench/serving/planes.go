package serving

import (
	"fmt"
	"strings"
)

// Planes is what came of a target's second planes, where they may come apart from
// the rest, over its requests.
type Planes struct {
	Apart     float64 `json:"apart"`                // share of requests whose second planes did
	Second    float64 `json:"kv_bytes_second"`      // of them, mean bytes moved as second planes by the end
	TopTokens float64 `json:"top_plane_tokens"`     // of them, mean tokens computed while some were not read
	Adopted   float64 `json:"adopted"`              // of them, share that read all in the end
	Adoption  float64 `json:"adoption_s"`           // of those, mean time from the first token until then
	Same      float64 `json:"same"`                 // share of answers that are Like's
	Common    float64 `json:"common"`               // mean share of an answer until it parts from Like's
	Like      string  `json:"like"`                 // the target with all planes
	LikeF16   float64 `json:"common_with_f16"`      // Common, against split float16's
	WholeF16  float64 `json:"like_common_with_f16"` // the same of Like
}

// planesOf compares a target with the one that reads all planes from the start.
func planesOf(name, like string, all []Outcome) *Planes {
	p := &Planes{Like: like}
	asked, apart, adopted := 0, 0, 0
	for _, o := range all {
		if o.Target != name || o.Error != "" {
			continue
		}
		asked++
		if t := o.Timing; t != nil && t.KVSecond+int64(t.TopTokens) > 0 {
			apart++
			p.Second += float64(t.KVSecond)
			p.TopTokens += float64(t.TopTokens)
			if t.Adoption > 0 {
				adopted++
				p.Adoption += t.Adoption / 1000
			}
		}
	}
	p.Apart, p.Adopted = over(float64(apart), asked), over(float64(adopted), apart)
	p.Second, p.TopTokens, p.Adoption = over(p.Second, apart), over(p.TopTokens, apart), over(p.Adoption, adopted)
	p.Same, p.Common = agreement(name, like, all)
	_, p.LikeF16 = agreement(name, SplitF16, all)
	_, p.WholeF16 = agreement(like, SplitF16, all)
	return p
}

// agreement holds the answers of one target against another's: the share that are
// the same, and the mean share of an answer's text until it parts from the other.
func agreement(a, b string, all []Outcome) (same, common float64) {
	texts := map[[2]int]string{}
	for _, o := range all {
		if o.Target == b && o.Error == "" {
			texts[[2]int{o.Round, o.Number}] = string(o.text)
		}
	}
	n := 0
	for _, o := range all {
		want, ok := texts[[2]int{o.Round, o.Number}]
		if o.Target != a || o.Error != "" || !ok || want == "" {
			continue
		}
		n++
		got, at := string(o.text), 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		common += float64(at) / float64(max(len(got), len(want)))
		if got == want {
			same++
		}
	}
	return over(same, n), over(common, n)
}

// planesTable is a table of the targets whose second planes may come apart; ""
// where there is none.
func (r *Report) planesTable() string {
	var b strings.Builder
	for _, row := range r.Rows {
		p := row.Planes
		if p == nil {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("\n| | apart | first planes | second planes | tokens before they were read | all read | after | the same answer as | all of it | until they part | with `f16` until they part | the other with `f16` |\n|---|" +
				strings.Repeat("---|", 11) + "\n")
		}
		fmt.Fprintf(&b, "| %s | %.0f %% | %s | %s | %.0f | %.0f %% | %s | `%s` | %.0f %% | %.0f %% | %.0f %% | %.0f %% |\n", row.label(), 100*p.Apart, size(row.KVBytes-p.Apart*p.Second), size(p.Second),
			p.TopTokens, 100*p.Adopted, clock(p.Adoption), p.Like, 100*p.Same, 100*p.Common, 100*p.LikeF16, 100*p.WholeF16)
	}
	return b.String()
}
