package tokenizer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/terse-llm/terse"
)

// Kinds of SentencePiece tokens; GGUF numbers them the same way.
const (
	kindNormal  = 1
	kindUnknown = 2
	kindControl = 3
	kindUser    = 4 // user-defined: always one token
	kindUnused  = 5
	kindByte    = 6
)

// spVocab is a SentencePiece vocabulary, from its own file or from GGUF.
type spVocab struct {
	tokens      []string
	scores      []float32
	kinds       []int32
	prefixSpace bool
	rstrip      func(token string) bool // tokens that swallow the space after them
	names       names
}

// build makes the tokenizer: pairs join by score, characters that are no token
// become their bytes.
func (v *spVocab) build() (*Tokenizer, error) {
	b := builder{vocab: make(map[string]int32, len(v.tokens)), byteFallback: true, fuseUnk: true, names: v.names, unk: v.names.unk}
	b.ranks = ranksOf(v.scores)
	for i, token := range v.tokens {
		kind := v.kinds[i]
		if _, twice := b.vocab[token]; twice {
			return nil, fmt.Errorf("token %.40q is there twice, at %d too", token, i)
		}
		if ordinary(kind) {
			b.vocab[token] = int32(i)
			continue
		}
		b.added = append(b.added, addedToken{id: terse.Token(i), content: token,
			special: kind != kindUser, hidden: kind == kindUnused, rstrip: v.rstrip != nil && v.rstrip(token)})
	}
	if v.prefixSpace {
		b.norm = append(b.norm, prepend(metaspace))
		b.stripStart = 1
	}
	b.norm = append(b.norm, replaceAll(" ", metaspace))
	b.respell = normalizer{replaceAll(metaspace, " "), unhex}
	return b.build()
}

// ordinary reports whether text can become a token of this kind by merging, or
// by byte fallback. Files that predate the kinds have zeros.
func ordinary(kind int32) bool { return kind == kindNormal || kind == kindByte || kind == 0 }

// ranksOf orders scores: the highest is rank 0, equal scores are equal ranks.
func ranksOf(scores []float32) []int32 {
	sorted := slices.Clone(scores)
	slices.SortFunc(sorted, func(a, b float32) int { return cmp.Compare(b, a) })
	sorted = slices.Compact(sorted)
	ranks := make([]int32, len(scores))
	for i, s := range scores {
		at, _ := slices.BinarySearchFunc(sorted, s, func(a, b float32) int { return cmp.Compare(b, a) })
		ranks[i] = int32(at)
	}
	return ranks
}

// Tags of the protocol buffer, field<<3 | wire type (0 for integers): what this package reads of
// SentencePiece's ModelProto.
const (
	spTagPiece      = 1<<3 | 2
	spTagTrainer    = 2<<3 | 2
	spTagNormalizer = 3<<3 | 2

	spPieceText, spPieceScore, spPieceKind = 1<<3 | 2, 2<<3 | 5, 3 << 3

	spTrainerType                                                  = 3 << 3
	spTrainerSuffix                                                = 24 << 3
	spTrainerUnkID, spTrainerBOSID, spTrainerEOSID, spTrainerPadID = 40 << 3, 41 << 3, 42 << 3, 43 << 3
	spNormName, spNormMap, spNormPrefix, spNormTrim, spNormEscape  = 1<<3 | 2, 2<<3 | 2, 3 << 3, 4 << 3, 5 << 3
	spModelUnigram, spModelBPE                                     = 1, 2
)

// spFile is a decoded ModelProto with SentencePiece's defaults filled in.
type spFile struct {
	spVocab
	modelType          int
	suffix             bool
	unk, bos, eos, pad int
	charsMap           int // bytes of precompiled normalization
	trim, escape       bool
}

func fromSentencePiece(data []byte, cfg *config) (*Tokenizer, error) {
	f := spFile{modelType: spModelUnigram, unk: 0, bos: 1, eos: 2, pad: -1, trim: true, escape: true}
	f.prefixSpace = true
	if err := protoFields(data, f.field); err != nil {
		return nil, err
	}
	switch {
	case f.modelType != spModelBPE:
		return nil, fmt.Errorf("SentencePiece model type %d is not supported, only BPE (%d)", f.modelType, spModelBPE)
	case len(f.tokens) == 0:
		return nil, errors.New("the SentencePiece vocabulary is empty")
	case f.charsMap > 0, f.trim, !f.escape, f.suffix:
		return nil, errors.New("SentencePiece normalization rules, whitespace trimming or suffixes are not supported; use tokenizer.json")
	}
	f.names = cfg.names()
	for _, n := range []struct {
		name *string
		id   int
	}{{&f.names.bos, f.bos}, {&f.names.eos, f.eos}, {&f.names.pad, f.pad}, {&f.names.unk, f.unk}} {
		if *n.name == "" && n.id >= 0 && n.id < len(f.tokens) {
			*n.name = f.tokens[n.id]
		}
	}
	t, err := f.build()
	if err != nil {
		return nil, err
	}
	yes := true
	t.around(&yes, nil)
	t.around(cfg.AddBOS, cfg.AddEOS)
	return t, nil
}

// field reads one field of ModelProto.
func (f *spFile) field(tag uint64, value uint64, body []byte) error {
	switch tag {
	case spTagPiece:
		return f.piece(body)
	case spTagTrainer:
		return protoFields(body, f.trainer)
	case spTagNormalizer:
		return protoFields(body, f.normalizer)
	}
	return nil
}

func (f *spFile) piece(data []byte) error {
	if len(f.tokens) >= maxVocab {
		return fmt.Errorf("more than %d tokens", maxVocab)
	}
	text, score, kind := "", float32(0), int32(kindNormal)
	err := protoFields(data, func(tag, value uint64, body []byte) error {
		switch tag {
		case spPieceText:
			text = string(body)
		case spPieceScore:
			score = math.Float32frombits(uint32(value))
		case spPieceKind:
			kind = int32(value)
		}
		return nil
	})
	f.tokens, f.scores, f.kinds = append(f.tokens, text), append(f.scores, score), append(f.kinds, kind)
	return err
}

func (f *spFile) trainer(tag, value uint64, _ []byte) error {
	switch tag {
	case spTrainerType:
		f.modelType = int(value)
	case spTrainerSuffix:
		f.suffix = value != 0
	case spTrainerUnkID:
		f.unk = int(int32(value))
	case spTrainerBOSID:
		f.bos = int(int32(value))
	case spTrainerEOSID:
		f.eos = int(int32(value))
	case spTrainerPadID:
		f.pad = int(int32(value))
	}
	return nil
}

func (f *spFile) normalizer(tag, value uint64, body []byte) error {
	switch tag {
	case spNormMap:
		f.charsMap = len(body)
	case spNormPrefix:
		f.prefixSpace = value != 0
	case spNormTrim:
		f.trim = value != 0
	case spNormEscape:
		f.escape = value != 0
	}
	return nil
}

var errProto = errors.New("the protocol buffer is damaged")

// protoFields calls field for each field of a message: value for the numeric
// wire types, body for the length-delimited one.
func protoFields(data []byte, field func(tag, value uint64, body []byte) error) error {
	for len(data) > 0 {
		tag, n := binary.Uvarint(data)
		if n <= 0 {
			return errProto
		}
		data = data[n:]
		var value uint64
		var body []byte
		switch tag & 7 {
		case 0:
			value, n = binary.Uvarint(data)
		case 1:
			n = 8
		case 2:
			size, m := binary.Uvarint(data)
			if m <= 0 || size > uint64(len(data)-m) {
				return errProto
			}
			n = m + int(size)
			body = data[m:n]
		case 5:
			if n = 4; len(data) >= 4 {
				value = uint64(binary.LittleEndian.Uint32(data))
			}
		default:
			return errProto
		}
		if n <= 0 || n > len(data) {
			return errProto
		}
		data = data[n:]
		if err := field(tag, value, body); err != nil {
			return err
		}
	}
	return nil
}
