// Package tokenizer turns text into a model's token ids and back, from the
// model's own files.
//
// It reads Hugging Face directories (tokenizer.json, or vocab.json with
// merges.txt), SentencePiece tokenizer.model files of the BPE kind, the
// tiktoken-style tokenizer.model of Llama 3, and the vocabularies inside GGUF
// files ([FromGGUF] takes the decoded metadata, because files are opened on a
// higher floor). All of them become one [Tokenizer], which runs
//
//	text -> added tokens cut out -> normalizer -> pre-tokenizer -> BPE -> ids
//
// A component this package does not know is an error that names it: a
// tokenizer that is nearly right gives a model that is quietly wrong.
//
// # Text that is not UTF-8
//
// [Tokenizer.Encode] refuses it and names the byte offset. Going back, ids can
// spell any bytes; [Tokenizer.Decode] and [Stream] replace each maximal invalid
// part by U+FFFD, and a Stream holds bytes back until they are a whole
// character, so concatenated pieces always equal the text decoded at once.
//
// # Control tokens
//
// A token is a control token when its file marks it special, when it is the
// BOS, EOS, PAD or UNK token, or when it is spelled like one (<|…|>). They are
// recognised in text only where [EncodeOptions] allows it; a chat gateway marks
// the user's words with [EncodeOptions.Plain], so that nobody can end a turn by
// writing <|im_end|>. Added tokens that are not control tokens (runs of spaces,
// <tool_call>) are ordinary vocabulary and always recognised.
//
// # Hostile input
//
// Files are size-limited, counts and ids are checked before anything is
// allocated, and split patterns that are not hand-written run under a timeout.
// Encoding is O(n log n) for any text: a megabyte of one letter is fine.
package tokenizer
