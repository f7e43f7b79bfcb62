package tokenizer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/terse-llm/terse"
)

// names are the spellings of a model's named tokens; "" for none.
type names struct{ bos, eos, pad, unk string }

// builder collects what a file says and makes the tokenizer of it. It is where
// all file formats meet.
type builder struct {
	vocab     map[string]int32
	merges    [][2]string
	ranks     []int32 // instead of merges: see bpe.ranks
	byteLevel bool
	// byteFallback spells characters that are no token by tokens <0x00>…<0xFF>.
	byteFallback bool
	wholeFirst   bool
	unk          string // what stands for unknown characters; "": nothing does
	fuseUnk      bool

	norm       normalizer
	pre        []preStep
	respell    normalizer // a token's text from its spelling, where not byte-level
	stripStart int

	added []addedToken
	names names
}

func (b *builder) addHF(a hfAdded) {
	id := terse.Token(a.ID)
	if a.ID < 0 || a.ID >= maxVocab {
		id = none // refused later, by its name
	}
	b.added = append(b.added, addedToken{
		id: id, content: a.Content, special: a.Special, normalized: a.Normalized,
		singleWord: a.SingleWord, lstrip: a.LStrip, rstrip: a.RStrip,
	})
}

func (b *builder) build() (*Tokenizer, error) {
	b.markControl()
	t := &Tokenizer{norm: b.norm, pre: b.pre, stripStart: b.stripStart, vocab: &vocabulary{}}
	ids, err := b.spellings(t.vocab)
	if err != nil {
		return nil, err
	}
	if err := b.addAdded(t.vocab, ids); err != nil {
		return nil, err
	}
	if t.added, err = newAddedSet(b.added, b.norm); err != nil {
		return nil, err
	}
	if t.model, err = b.model(ids); err != nil {
		return nil, err
	}
	if b.names.unk == "" {
		b.names.unk = b.unk
	}
	t.setNames(b.names)
	if id, ok := t.ID(b.unk); ok {
		t.model.unk = int32(id)
	}
	if !b.byteLevel && wordsBegin(ids) {
		t.pre = append(slices.Clip(t.pre), wordStartStep(metaspace))
	}
	return t, nil
}

func (b *builder) markControl() {
	named := []string{b.names.bos, b.names.eos, b.names.pad, b.names.unk, b.unk}
	for i := range b.added {
		a := &b.added[i]
		a.control = a.special || looksControl(a.content) || slices.Contains(named, a.content)
	}
}

// spellings fills the way back from the vocabulary and returns the way there:
// raw bytes to ids for byte-level models, spellings to ids for the others.
func (b *builder) spellings(v *vocabulary) (map[string]int32, error) {
	ids := make(map[string]int32, len(b.vocab))
	for token, id := range b.vocab {
		text, encodable := token, true
		if b.byteLevel {
			if text, encodable = fromAlphabet(token); !encodable {
				text = token
			}
		} else {
			var err error
			if text, err = b.respell.apply(token); err != nil {
				return nil, err
			}
		}
		if v.has(terse.Token(id)) {
			return nil, fmt.Errorf("id %d is given to more than one token, %.40q is one of them", id, token)
		}
		if err := v.set(int(id), text); err != nil {
			return nil, err
		}
		if b.byteLevel && encodable {
			ids[text] = id
		} else if !b.byteLevel {
			ids[token] = id
		}
	}
	return ids, nil
}

// addAdded puts the added tokens into the vocabulary, as what they are written
// as, and takes control tokens out of what text can become by merging.
func (b *builder) addAdded(v *vocabulary, ids map[string]int32) error {
	for _, a := range b.added {
		old, inVocab := b.vocab[a.content]
		if inVocab && old != int32(a.id) {
			return fmt.Errorf("token %.40q is %d in the vocabulary and %d among the added tokens", a.content, old, a.id)
		}
		if !inVocab && v.has(a.id) {
			return fmt.Errorf("id %d of the added token %.40q belongs to another token", a.id, a.content)
		}
		text := a.content
		if !b.byteLevel {
			var err error
			if text, err = b.respell.apply(text); err != nil {
				return err
			}
		}
		if err := v.set(int(a.id), text); err != nil {
			return err
		}
		v.special[a.id], v.control[a.id] = a.special, a.control
		if a.control {
			b.forget(ids, a.content)
		}
	}
	return nil
}

func (b *builder) forget(ids map[string]int32, content string) {
	if raw, ok := fromAlphabet(content); b.byteLevel && ok {
		content = raw
	}
	delete(ids, content)
}

// model makes the BPE model.
func (b *builder) model(ids map[string]int32) (*bpe, error) {
	m := &bpe{ids: ids, byteLevel: b.byteLevel, ranks: b.ranks, wholeFirst: b.wholeFirst,
		unk: -1, fuseUnk: b.fuseUnk, cache: newPieceCache()}
	m.findBytes(b.byteFallback)
	if b.ranks != nil {
		return m, nil
	}
	if len(b.merges) > maxMerges {
		return nil, fmt.Errorf("%d merges: the limit is %d", len(b.merges), maxMerges)
	}
	m.pairs = make(map[uint64]merged, len(b.merges))
	for rank, p := range b.merges {
		left, lok := b.vocab[p[0]]
		right, rok := b.vocab[p[1]]
		out, ok := b.vocab[p[0]+p[1]]
		if !lok || !rok || !ok {
			return nil, fmt.Errorf("merge %d joins %.40q and %.40q: these and the result must be in the vocabulary", rank, p[0], p[1])
		}
		m.pairs[pairKey(left, right)] = merged{id: out, rank: int32(rank)}
	}
	return m, nil
}

// wordsBegin reports whether a space mark stands only at the beginning of a
// token (or after other marks), so that text can be cut before each word.
func wordsBegin(ids map[string]int32) bool {
	if _, ok := ids[metaspace]; !ok {
		return false
	}
	for token := range ids {
		if strings.Contains(strings.TrimLeft(token, metaspace), metaspace) {
			return false
		}
	}
	return true
}

// setNames resolves BOS, EOS and the others.
func (t *Tokenizer) setNames(n names) {
	find := func(name string) terse.Token {
		if name == "" {
			return none
		}
		if id, ok := t.ID(name); ok {
			return id
		}
		return none
	}
	t.bos, t.eos, t.pad, t.unk = find(n.bos), find(n.eos), find(n.pad), find(n.unk)
	t.addStop(t.eos)
}

func (t *Tokenizer) addStop(id terse.Token) {
	if t.vocab.has(id) && !slices.Contains(t.stops, id) {
		t.stops = append(t.stops, id)
	}
}
