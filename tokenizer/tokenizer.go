package tokenizer

import (
	"cmp"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/terse-llm/terse"
)

// MaxText is the longest text, in bytes, that Encode takes. It is beyond any
// model's context and keeps offsets and scratch memory bounded.
const MaxText = 16 << 20

// none marks an absent token id.
const none = terse.Token(-1)

// Tokenizer converts between text and ids. It is immutable and safe for
// concurrent use.
type Tokenizer struct {
	vocab *vocabulary
	added *addedSet
	norm  normalizer
	pre   []preStep
	model *bpe

	// stripStart is how many leading spaces decoding removes: the ones the
	// normalizer put there.
	stripStart     int
	prefix, suffix []terse.Token // put around the text by AddSpecial
	bos, eos       terse.Token
	pad, unk       terse.Token
	stops          []terse.Token
	chatTemplate   string
}

// Span is a half-open byte range.
type Span struct{ Start, End int }

// EncodeOptions says what Encode does beyond the plain text.
type EncodeOptions struct {
	// AddSpecial puts BOS, EOS or whatever the model's post-processor asks for
	// around the ids.
	AddSpecial bool
	// ParseSpecial recognises control tokens written in the text. Without it
	// they are encoded as the characters they are made of.
	ParseSpecial bool
	// Plain lists byte ranges of the text, sorted and apart, in which no control
	// token is recognised even with ParseSpecial: the words of a user inside a
	// rendered chat template.
	Plain []Span
}

// Encode returns the ids of text. Text that is not valid UTF-8 or longer than
// MaxText gives a [terse.Error] with CodeInvalid.
func (t *Tokenizer) Encode(text string, opts EncodeOptions) ([]terse.Token, error) {
	if len(text) > MaxText {
		return nil, &terse.Error{Code: terse.CodeInvalid,
			Message: fmt.Sprintf("cannot encode text of %d bytes: the limit is %d", len(text), MaxText)}
	}
	if at := invalidUTF8(text); at >= 0 {
		return nil, &terse.Error{Code: terse.CodeInvalid,
			Message: fmt.Sprintf("cannot encode text: invalid UTF-8 at byte %d", at)}
	}
	for i, s := range opts.Plain {
		if s.Start > s.End || i > 0 && s.Start < opts.Plain[i-1].End {
			return nil, fmt.Errorf("cannot encode text: plain spans %v are not sorted and apart", opts.Plain)
		}
	}
	r := run{t: t, opts: opts, out: make([]terse.Token, 0, len(text)/4+8)}
	if opts.AddSpecial {
		r.out = append(r.out, t.prefix...)
	}
	r.text(text)
	if opts.AddSpecial {
		r.out = append(r.out, t.suffix...)
	}
	if r.err != nil {
		return nil, fmt.Errorf("cannot encode text: %w", r.err)
	}
	return r.out, nil
}

// invalidUTF8 is the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(s string) int {
	if utf8.ValidString(s) {
		return -1
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// run is the state of one Encode. The first error sticks and stops the work.
type run struct {
	t     *Tokenizer
	opts  EncodeOptions
	out   []terse.Token
	err   error
	chain func(piece) // the pre-tokenizer steps, ending in the model
}

// text cuts the added tokens out of the raw text and encodes what lies between.
func (r *run) text(text string) {
	r.chain = r.model
	for i := len(r.t.pre) - 1; i >= 0; i-- {
		r.chain = r.through(r.t.pre[i], r.chain)
	}
	allow := func(a *addedToken, start, end int) bool {
		return !a.control || r.opts.ParseSpecial && !overlaps(r.opts.Plain, start, end)
	}
	r.t.added.raw.split(text, allow, func(part string, at int) {
		if r.err != nil {
			return
		}
		if part, r.err = r.t.norm.apply(part); r.err == nil {
			r.section(part, at == 0)
		}
	}, r.emit)
}

// section encodes normalized text that has no raw added token in it.
func (r *run) section(text string, first bool) {
	always := func(*addedToken, int, int) bool { return true }
	r.t.added.normalized.split(text, always, func(part string, at int) {
		if r.err == nil {
			r.chain(piece{text: part, first: first && at == 0})
		}
	}, r.emit)
}

func (r *run) emit(a *addedToken) { r.out = append(r.out, a.id) }

// through is one pre-tokenizer step with its sink.
func (r *run) through(step preStep, sink func(piece)) func(piece) {
	return func(p piece) {
		if r.err != nil {
			return
		}
		if err := step(p, sink); err != nil && r.err == nil {
			r.err = err
		}
	}
}

// model is the end of the chain.
func (r *run) model(p piece) {
	if r.err == nil && p.text != "" {
		r.out, r.err = r.t.model.encode(r.out, p.text)
	}
}

// overlaps reports whether text[start:end] touches one of the sorted spans.
func overlaps(spans []Span, start, end int) bool {
	i, _ := slices.BinarySearchFunc(spans, start, func(s Span, start int) int {
		return cmp.Compare(s.End, start+1)
	})
	return i < len(spans) && spans[i].Start < end
}

// Size is one more than the largest id. A model's logits may be longer, padded
// to a round number; the extra ids decode to nothing.
func (t *Tokenizer) Size() int { return len(t.vocab.pieces) }

// BOS is the token that begins a text, if the model has one.
func (t *Tokenizer) BOS() (terse.Token, bool) { return t.bos, t.bos != none }

// EOS is the token that ends a text, if the model has one.
func (t *Tokenizer) EOS() (terse.Token, bool) { return t.eos, t.eos != none }

// Pad is the padding token, if the model has one.
func (t *Tokenizer) Pad() (terse.Token, bool) { return t.pad, t.pad != none }

// Unknown is the token for what the vocabulary cannot spell, if there is one.
func (t *Tokenizer) Unknown() (terse.Token, bool) { return t.unk, t.unk != none }

// StopTokens are the ids that end a generation: EOS, those that the model's
// generation_config.json names, and the end-of-turn tokens of a GGUF file.
func (t *Tokenizer) StopTokens() []terse.Token { return slices.Clone(t.stops) }

// ChatTemplate is the Jinja source of the model's chat template, or "".
func (t *Tokenizer) ChatTemplate() string { return t.chatTemplate }

// IsSpecial reports whether id is marked special in the model's files: it is
// left out of text that is decoded with skipSpecial.
func (t *Tokenizer) IsSpecial(id terse.Token) bool {
	return t.vocab.has(id) && t.vocab.special[id]
}

// IsControl reports whether id is a control token, as the package comment
// defines it: text becomes it only where ParseSpecial allows.
func (t *Tokenizer) IsControl(id terse.Token) bool {
	return t.vocab.has(id) && t.vocab.control[id]
}

// ID is the id of a token in its file's spelling, such as "<|im_end|>", "Ġthe"
// (byte-level) or "▁the" (SentencePiece).
func (t *Tokenizer) ID(token string) (terse.Token, bool) {
	if id, ok := t.added.ids[token]; ok {
		return id, true
	}
	if t.model.byteLevel {
		raw, ok := fromAlphabet(token)
		if !ok {
			return 0, false
		}
		token = raw
	}
	if id, ok := t.model.ids[token]; ok {
		return terse.Token(id), true
	}
	if b := unhex(token); len(b) == 1 && len(token) > 1 && t.model.bytes[b[0]] >= 0 {
		return terse.Token(t.model.bytes[b[0]]), true
	}
	return 0, false
}

// TokenBytes is what id adds to a text: any bytes, perhaps part of a character.
// It is nil for an id outside the vocabulary.
func (t *Tokenizer) TokenBytes(id terse.Token) []byte {
	if !t.vocab.has(id) {
		return nil
	}
	return []byte(t.vocab.pieces[id])
}

// TokenText is TokenBytes as valid UTF-8, with U+FFFD for what is not.
func (t *Tokenizer) TokenText(id terse.Token) string {
	if !t.vocab.has(id) {
		return ""
	}
	return lossy(t.vocab.pieces[id])
}
