package minijinja

import "slices"

// args are the arguments of a call.
type args struct {
	name string // what is called, for messages
	pos  []Value
	kw   []keyword
}

type keyword struct {
	name  string
	value Value
}

// unset marks an argument that was not given: None is a value of its own.
type unset struct{}

func isSet(v Value) bool {
	_, missing := v.(unset)
	return !missing
}

// bind lays the arguments out in the order of names. The first `required` of
// them must be given; the others are unset where left out.
func (a args) bind(required int, names ...string) ([]Value, error) {
	if len(a.pos) > len(names) {
		return nil, errorf("%s takes at most %d arguments, %d given", a.name, len(names), len(a.pos))
	}
	out := make([]Value, len(names))
	for i := range out {
		out[i] = unset{}
	}
	copy(out, a.pos)
	for _, kw := range a.kw {
		i := slices.Index(names, kw.name)
		if i < 0 {
			return nil, errorf("%s has no argument '%s'", a.name, kw.name)
		}
		if isSet(out[i]) {
			return nil, errorf("%s got two values for '%s'", a.name, kw.name)
		}
		out[i] = kw.value
	}
	for i := range required {
		if !isSet(out[i]) {
			return nil, errorf("%s lacks the argument '%s'", a.name, names[i])
		}
	}
	return out, nil
}

// none binds a call without arguments.
func (a args) none() error {
	_, err := a.bind(0)
	return err
}

// keyword takes one keyword argument out of a, or gives unset.
func (a *args) keyword(name string) Value {
	for i, kw := range a.kw {
		if kw.name == name {
			a.kw = slices.Delete(slices.Clone(a.kw), i, i+1)
			return kw.value
		}
	}
	return unset{}
}

// strArg is a string argument, or missing where not given.
func strArg(name string, v Value, missing string) (string, error) {
	if !isSet(v) {
		return missing, nil
	}
	str, ok := v.(string)
	if !ok {
		return "", errorf("%s needs a string, found %s", name, typeName(v))
	}
	return str, nil
}

// intArg is an integer argument, or missing where not given.
func intArg(name string, v Value, missing int64) (int64, error) {
	if !isSet(v) {
		return missing, nil
	}
	i, err := asInt(v)
	if err != nil {
		return 0, errorf("%s needs an integer, found %s", name, typeName(v))
	}
	return i, nil
}

func flagArg(v Value, missing bool) bool {
	if !isSet(v) {
		return missing
	}
	return truth(v)
}
