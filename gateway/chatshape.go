package gateway

import "github.com/terse-llm/terse"

// chatShape writes the answers of /v1/chat/completions.
type chatShape struct{ s *Server }

type chatAnswer struct {
	envelope
	Choices []chatChoice `json:"choices"`
	Usage   usageObject  `json:"usage"`
}

type chatChoice struct {
	Index        int           `json:"index"`
	Message      chatMessage   `json:"message"`
	Logprobs     *chatLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type chatMessage struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"` // always null: the model does not tell refusals from answers
}

type chatChunkChoice struct {
	Index        int           `json:"index"`
	Delta        chatDelta     `json:"delta"`
	Logprobs     *chatLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type chatDelta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

type chatLogprobs struct {
	Content []chatLogprob `json:"content"`
	Refusal *string       `json:"refusal"`
}

type chatLogprob struct {
	chatToken
	TopLogprobs []chatToken `json:"top_logprobs"`
}

type chatToken struct {
	Token   string  `json:"token"`
	Logprob float32 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

const (
	chatObject      = "chat.completion"
	chatChunkObject = "chat.completion.chunk"
)

func (c chatShape) answer(x *exchange, choices []choiceText) any {
	out := chatAnswer{envelope: x.envelope(chatObject), Usage: newUsageObject(x.usage())}
	for i, choice := range choices {
		out.Choices = append(out.Choices, chatChoice{
			Index: i, Message: chatMessage{Role: "assistant", Content: choice.text},
			Logprobs: c.logprobs(x, choice.scores), FinishReason: finishName(choice.finish),
		})
	}
	return out
}

func (c chatShape) opening(x *exchange, i int) any {
	empty := ""
	return x.chunk(chatChunkObject, chatChunkChoice{Index: i, Delta: chatDelta{Role: "assistant", Content: &empty}})
}

func (c chatShape) step(x *exchange, i int, d delta) any {
	return x.chunk(chatChunkObject, chatChunkChoice{Index: i, Delta: chatDelta{Content: &d.text}, Logprobs: c.logprobs(x, d.scores)})
}

func (c chatShape) closing(x *exchange, i int, finish terse.FinishReason) any {
	return x.chunk(chatChunkObject, chatChunkChoice{Index: i, FinishReason: finishName(finish)})
}

func (c chatShape) total(x *exchange, usage usageObject, report timingReport) any {
	return x.totalChunk(chatChunkObject, usage, report)
}

func (c chatShape) logprobs(x *exchange, scores []scoredToken) *chatLogprobs {
	if x.params.sampling.Logprobs < 0 {
		return nil
	}
	out := &chatLogprobs{Content: []chatLogprob{}}
	for _, score := range scores {
		entry := chatLogprob{chatToken: c.token(score.Logprob), TopLogprobs: []chatToken{}}
		for _, top := range score.Top {
			entry.TopLogprobs = append(entry.TopLogprobs, c.token(top))
		}
		out.Content = append(out.Content, entry)
	}
	return out
}

func (c chatShape) token(l terse.Logprob) chatToken {
	piece := c.s.opts.Tokenizer.TokenBytes(l.Token)
	out := chatToken{Token: tokenName(piece, ""), Logprob: finite(l.Logprob), Bytes: make([]int, len(piece))}
	for i, b := range piece {
		out.Bytes[i] = int(b)
	}
	return out
}
