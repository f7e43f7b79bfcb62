package quant

import (
	"strings"
	"testing"
)

func TestParseFormatName(t *testing.T) {
	f := func(in string, calibrated bool, want string) {
		t.Helper()
		if got := parse(t, in, calibrated).Name; got != want {
			t.Errorf("%q is named %q, want %q", in, got, want)
		}
	}
	f("f16", true, "f16")
	f("hq2", false, "hq2")
	f("hq2,sym=auto,rotate=on,sinks=64", true, "hq2")
	f("hq2,sym=on", true, "hq2")
	f("hq2,sym=on", false, "hq2,sym=on")
	f("hq2,sym=off", true, "hq2,sym=off")
	f("hq2,mean=off", true, "hq2,mean=off")
	f("hq2,important=10%", true, "hq2,important=10")
	f("hq4,v2=none,important=5", true, "hq3,important=5")
	f("hq2,k2=lead:32,important=20", true, "hq2,k2=lead:32,important=20")
	f("hq2,mean=off,sym=on", true, "hq2,sym=on,mean=off")
	f("hq2,recent=256,clip=off,rotate=off,sinks=0", true, "hq2,rotate=off,clip=off,sinks=0,recent=256")
	f("hq2,k2=all", true, "hq3")
	f("hq4,v2=none", true, "hq3")
	f("hq3,k2=lead:32", true, "hq2,k2=lead:32")
	f("hq4,k2=tokens:16", true, "hq2,k2=tokens:16,v2=all")
	f("hack,bits=2,seed=0", true, "hack")
	f("hack,seed=7,partition=128,bits=4", true, "hack,bits=4,partition=128,seed=7")
	f("int8", true, "int8")
	f("hq2+", true, "hq2+")
	f("hq2,k2=lead:quarter,basis=balanced", true, "hq2+")
	f("hq2+,basis=hadamard", true, "hq2,k2=lead:quarter")
	f("hq2+,k2=none,recent=256", true, "hq2,basis=balanced,recent=256")
	f("hq2,basis=balanced,k2=plan", true, "hq2b")
	f("hq2b,basis=balanced,recent=256", true, "hq2b,recent=256")
	f("hq2b,important=6,budget=2.625", true, "hq2b,budget=2.625,important=6")
	f("hq2b,budget=plan", true, "hq2b")
	f("hq2,k2=shared:16", true, "hq2,k2=shared:16")
	f("hq3,basis=balanced", false, "hq3,basis=balanced")
	f("cachegen,prefill=codes,delta=10", true, "cachegen,delta=10,prefill=codes")
	f("cachegen,prefill=exact", false, "cachegen")
	f("kivi,group=32,bits=4", false, "kivi,bits=4")
	f("kvquant,prefill=exact,bits=2", true, "kvquant")
	f("kvquant,prefill=codes,bits=3", false, "kvquant,bits=3,prefill=codes")
	f("kivi,residual=64,prefill=codes,group=64", true, "kivi,group=64,residual=64,prefill=codes")
	f("hack:v2,round=stochastic,seed=9,prefill=codes,rqe=off,se=off", true, "hack:v2,se=off,rqe=off,round=stochastic,seed=9,prefill=codes")
}

func TestParseFormatResolves(t *testing.T) {
	f := func(in string, calibrated, symmetric bool) {
		t.Helper()
		if got := parse(t, in, calibrated).Symmetric; got != symmetric {
			t.Errorf("%q, calibrated %v: symmetric %v", in, calibrated, got)
		}
	}
	f("hq2", true, true)
	f("hq2", false, false)
	f("hq2,mean=off", true, false)
	f("hq2,sym=on", false, true)
	f("hq2,sym=off", true, false)
	if got := parse(t, "hack,partition=128", false).PageTokens; got != 128 {
		t.Errorf("pages of %d tokens for partitions of 128", got)
	}
	if got := parse(t, "hack,partition=32", false).PageTokens; got != 64 {
		t.Errorf("pages of %d tokens for partitions of 32", got)
	}
}

func TestParseFormatErrors(t *testing.T) {
	f := func(in string, want ...string) {
		t.Helper()
		_, err := ParseFormat(in, true)
		if err == nil {
			t.Errorf("%q was taken", in)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: error %q does not say %q", in, err, w)
			}
		}
	}
	f("hq5", "did you mean hq2 or hq3 or hq4?", "f16, hq2, hq2+, hq2b, hq3, hq4, hack, hack:v2")
	f("hcak", "did you mean hack?")
	f("", "choose one of")
	f("int8-something-else", "choose one of")
	f("f16,sinks=64", "takes no options")
	f("hq2,", "its options are sym, rotate")
	f("hq2,rotat=off", "did you mean rotate?")
	f("hq2,bits=4", "its options are")
	f("hq2,sinks=10", "multiple of 64")
	f("hq2,recent=-64", "multiple of 64")
	f("hq2,sinks=64,sinks=0", "twice")
	f("hq2,sym=yes", "sym=on|off|auto")
	f("hq2,k2=lead:15", "k2=none|all|lead:N")
	f("hq2,v2=shared:16", "v2=none|all|lead:N")
	f("hq2,k2=shared:24", "shared:N")
	f("hq2,k2=shared:16,sym=off", "without a zero")
	f("hq2,k2=plan", "basis=balanced")
	f("hq2,k2=lead", "k2=none|all|lead:N")
	f("hq2,v2=tokens:64", "tokens:N")
	f("hq2,important=60%", "1 to 50")
	f("hq2b,budget=9", "budget=BITS")
	f("hq2b,budget=2.6251", "budget=BITS")
	f("hq2b,budget=02.5", "budget=BITS")
	f("hq2+,budget=2.5", "use hq2b")
	f("hq4,important=10", "no meaning")
	f("hack,bits=3", "bits=2|4|8")
	f("hack,partition=16", "partition=32|64|128")
	f("hack,seed=-1", "seed=N")
	f("hack,round=nearest,seed=4", "no meaning")
	f("hack:v2,sinks=4", "its options are")
	f("int4,bits=8", "takes no options")
	f("int3", "did you mean int8 or int4?")
	f("kivi,group=16", "group=32|64")
	f("kvquant,bits=8", "bits=2|3|4")
	f("cachegen,bins=8", "its options are delta, prefill")
	f("cachegen,delta=9", "delta=off|10")
	f("cachgen", "did you mean cachegen?")
	f("kivi,residual=100", "residual=64|128|256")
}

// Any text gives an error or a format whose name gives the same format.
func FuzzParseFormat(f *testing.F) {
	for _, name := range append(everyFormat, "hq2,sym=on,mean=off,clip=off", "hack,seed=18446744073709551615", "hq2,k2=lead:1024", "hq2,,") {
		f.Add(name, true)
		f.Add(name, false)
	}
	f.Fuzz(func(t *testing.T, s string, calibrated bool) {
		got, err := ParseFormat(s, calibrated)
		if err != nil {
			return
		}
		again, err := ParseFormat(got.Name, calibrated)
		if err != nil || again != got {
			t.Fatalf("%q is %+v, its name %q is %+v (%v)", s, got, got.Name, again, err)
		}
		if g, err := NewGeometry(got, 1, 1, 64); err == nil && got.Coded() && g.CodedPage() <= 0 {
			t.Fatalf("%q has coded pages of %d bytes", s, g.CodedPage())
		}
	})
}
