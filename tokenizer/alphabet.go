package tokenizer

import "strings"

// Byte-level vocabularies spell each byte as one printable character: GPT-2's
// alphabet. Printable Latin-1 bytes stand for themselves, the other 68 are
// numbered from U+0100 in byte order.

// isSelf reports whether b is spelled by the character of the same number.
func isSelf(b int) bool {
	return b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae && b <= 0xff
}

// byteRunes is the alphabet by byte, runeBytes its inverse (-1: not in it).
var byteRunes, runeBytes = makeAlphabet()

func makeAlphabet() (runes [256]rune, bytes [324]int16) {
	for i := range bytes {
		bytes[i] = -1
	}
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if !isSelf(b) {
			r, next = next, next+1
		}
		runes[b], bytes[r] = r, int16(b)
	}
	return runes, bytes
}

// fromAlphabet is the bytes that s spells; false if a character of s is not in
// the alphabet.
func fromAlphabet(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if int(r) >= len(runeBytes) || runeBytes[r] < 0 {
			return "", false
		}
		b = append(b, byte(runeBytes[r]))
	}
	return string(b), true
}

// toAlphabet spells the bytes of s.
func toAlphabet(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(byteRunes[s[i]])
	}
	return b.String()
}
