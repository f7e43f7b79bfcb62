package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/terse-llm/terse"
)

// addedToken is a token that is found in the text before any splitting.
type addedToken struct {
	id                         terse.Token
	content                    string
	special, control           bool
	singleWord, lstrip, rstrip bool
	normalized                 bool // matched after the normalizer, not before
	hidden                     bool // never matched: a place kept for later use
}

// addedSet holds the added tokens of a model.
type addedSet struct {
	ids             map[string]terse.Token
	raw, normalized trie
}

// looksControl recognises control tokens that their file does not mark special.
func looksControl(content string) bool {
	switch content {
	case "<s>", "</s>", "<unk>", "<pad>", "<mask>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>":
		return true
	}
	return strings.HasPrefix(content, "<|") && strings.HasSuffix(content, "|>") ||
		strings.HasPrefix(content, "<｜") && strings.HasSuffix(content, "｜>")
}

// newAddedSet indexes tokens; control must already be decided. Control tokens
// are always matched in the raw text, because only there are the byte ranges of
// [EncodeOptions.Plain] known.
func newAddedSet(tokens []addedToken, norm normalizer) *addedSet {
	s := &addedSet{ids: make(map[string]terse.Token, len(tokens))}
	for i := range tokens {
		a := &tokens[i]
		if a.content == "" {
			continue
		}
		s.ids[a.content] = a.id
		if a.hidden {
			continue
		}
		if a.normalized && !a.control && len(norm) > 0 {
			s.normalized.add(norm.apply(a.content), a)
		} else {
			s.raw.add(a.content, a)
		}
	}
	return s
}

// trie finds the longest added token at a position.
type trie struct {
	nodes []trieNode
	first [256]bool // bytes that begin a token
}

type trieNode struct {
	next  map[byte]int32
	token *addedToken
}

func (t *trie) add(key string, a *addedToken) {
	if key == "" {
		return
	}
	if len(t.nodes) == 0 {
		t.nodes = []trieNode{{}}
	}
	t.first[key[0]] = true
	at := int32(0)
	for i := range len(key) {
		n, ok := t.nodes[at].next[key[i]]
		if !ok {
			n = int32(len(t.nodes))
			if t.nodes[at].next == nil {
				t.nodes[at].next = map[byte]int32{}
			}
			t.nodes[at].next[key[i]] = n
			t.nodes = append(t.nodes, trieNode{})
		}
		at = n
	}
	t.nodes[at].token = a
}

// allowFunc decides whether the token found at text[start:end] counts.
type allowFunc func(a *addedToken, start, end int) bool

// split calls between for the text around the tokens it finds (never for an
// empty part), with its offset, and found for each token, in order.
func (t *trie) split(text string, allow allowFunc, between func(string, int), found func(*addedToken)) {
	from := 0
	if len(t.nodes) > 0 {
		for i := 0; i < len(text); {
			a, end := t.longest(text, i, allow)
			if a == nil {
				i++
				continue
			}
			start := i
			if a.lstrip {
				start = from + len(strings.TrimRightFunc(text[from:i], unicode.IsSpace))
			}
			if a.rstrip {
				end = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
			}
			if start > from {
				between(text[from:start], from)
			}
			found(a)
			from, i = end, end
		}
	}
	if from < len(text) {
		between(text[from:], from)
	}
}

// longest is the longest allowed token that begins at text[i].
func (t *trie) longest(text string, i int, allow allowFunc) (best *addedToken, end int) {
	if !t.first[text[i]] {
		return nil, 0
	}
	at := int32(0)
	for j := i; j < len(text); j++ {
		n, ok := t.nodes[at].next[text[j]]
		if !ok {
			break
		}
		at = n
		a := t.nodes[at].token
		if a != nil && (!a.singleWord || isolated(text, i, j+1)) && allow(a, i, j+1) {
			best, end = a, j+1
		}
	}
	return best, end
}

// isolated reports whether text[start:end] touches no word character.
func isolated(text string, start, end int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:start])
	after, _ := utf8.DecodeRuneInString(text[end:])
	return (start == 0 || !isWord(before)) && (end == len(text) || !isWord(after))
}

// isWord is \w of Unicode regular expressions.
func isWord(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r) || unicode.Is(unicode.Pc, r)
}
