package gateway

import (
	"slices"

	"github.com/terse-llm/terse"
)

// completionShape writes the answers of /v1/completions.
type completionShape struct{ s *Server }

type completionAnswer struct {
	envelope
	Choices []completionChoice `json:"choices"`
	Usage   usageObject        `json:"usage"`
}

type completionChoice struct {
	Text         string              `json:"text"`
	Index        int                 `json:"index"`
	Logprobs     *completionLogprobs `json:"logprobs"`
	FinishReason *string             `json:"finish_reason"`
}

// completionLogprobs has one element per token in each list; null stands for
// what does not exist (the first token of a prompt has no log-probability).
type completionLogprobs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []*float32           `json:"token_logprobs"`
	TopLogprobs   []map[string]float32 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`
}

const completionObject = "text_completion"

func (c completionShape) answer(x *exchange, choices []choiceText) any {
	out := completionAnswer{envelope: x.envelope(completionObject), Usage: newUsageObject(x.usage())}
	for i, choice := range choices {
		out.Choices = append(out.Choices, completionChoice{
			Text: choice.text, Index: i, Logprobs: c.logprobs(x, choice.scores), FinishReason: finishName(choice.finish),
		})
	}
	return out
}

func (c completionShape) opening(*exchange, int) any { return nil }

func (c completionShape) step(x *exchange, i int, d delta) any {
	return x.chunk(completionObject, completionChoice{Text: d.text, Index: i, Logprobs: c.logprobs(x, d.scores)})
}

func (c completionShape) closing(x *exchange, i int, finish terse.FinishReason) any {
	return x.chunk(completionObject, completionChoice{Index: i, FinishReason: finishName(finish)})
}

func (c completionShape) total(x *exchange, usage usageObject, report timingReport) any {
	return x.totalChunk(completionObject, usage, report)
}

func (c completionShape) logprobs(x *exchange, scores []scoredToken) *completionLogprobs {
	if x.params.sampling.Logprobs < 0 {
		return nil
	}
	out := &completionLogprobs{
		Tokens: []string{}, TokenLogprobs: []*float32{}, TopLogprobs: []map[string]float32{}, TextOffset: []int{},
	}
	for _, score := range scores {
		name := c.name(score.Token)
		out.Tokens = append(out.Tokens, name)
		out.TextOffset = append(out.TextOffset, score.offset)
		if score.null {
			out.TokenLogprobs = append(out.TokenLogprobs, nil)
			out.TopLogprobs = append(out.TopLogprobs, nil)
			continue
		}
		own := finite(score.Logprob.Logprob)
		// The token itself is always among the top, as OpenAI has it.
		tops := map[string]float32{}
		for _, top := range slices.Backward(score.Top) { // of two of one name the likelier stays
			tops[c.name(top.Token)] = finite(top.Logprob)
		}
		tops[name] = own
		out.TokenLogprobs = append(out.TokenLogprobs, &own)
		out.TopLogprobs = append(out.TopLogprobs, tops)
	}
	return out
}

func (c completionShape) name(t terse.Token) string {
	return tokenName(c.s.opts.Tokenizer.TokenBytes(t), "bytes:")
}
