package tokenizer

import (
	"fmt"

	"github.com/terse-llm/terse"
)

// Limits on what a model's files may claim. Real vocabularies end at about
// 260 thousand entries and 33 MB of JSON.
const (
	maxFile    = 96 << 20 // bytes of one file
	maxVocab   = 2 << 20  // ids
	maxMerges  = 4 << 20
	maxToken   = 16 << 10 // bytes of one token
	maxPattern = 8 << 10  // bytes of one split pattern
	maxNesting = 8        // Sequence in Sequence
)

// vocabulary is the way back: what each id adds to a text.
type vocabulary struct {
	pieces  []string // decoded bytes by id; "" for an id that is not used
	used    []bool
	special []bool
	control []bool
}

func (v *vocabulary) has(id terse.Token) bool {
	return id >= 0 && int(id) < len(v.pieces) && v.used[id]
}

// set gives id its decoded bytes, growing the table.
func (v *vocabulary) set(id int, text string) error {
	if id < 0 || id >= maxVocab {
		return fmt.Errorf("token %.40q has id %d: ids go from 0 to %d", text, id, maxVocab-1)
	}
	if len(text) > maxToken {
		return fmt.Errorf("token %d is %d bytes long: the limit is %d", id, len(text), maxToken)
	}
	if n := id + 1 - len(v.pieces); n > 0 {
		v.pieces = append(v.pieces, make([]string, n)...)
		v.used = append(v.used, make([]bool, n)...)
		v.special = append(v.special, make([]bool, n)...)
		v.control = append(v.control, make([]bool, n)...)
	}
	v.pieces[id], v.used[id] = text, true
	return nil
}
