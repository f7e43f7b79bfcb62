package minijinja

// someItems is itemsOf, empty for what is false: map, select and reject look
// at truth before they iterate, so that None passes.
func (s *state) someItems(v Value) ([]Value, error) {
	if !truth(v) {
		return nil, nil
	}
	return s.itemsOf(v)
}

// filterMap applies a filter, or picks an attribute, of each item.
func filterMap(s *state, v Value, a args) (Value, error) {
	attr, missing := a.keyword("attribute"), a.keyword("default")
	items, err := s.someItems(v)
	if err != nil {
		return nil, err
	}
	for i, item := range items {
		if isSet(attr) {
			items[i], err = s.path(item, attr)
			if _, none := items[i].(Undefined); none && isSet(missing) {
				items[i] = missing
			}
		} else if len(a.pos) > 0 {
			items[i], err = s.filterBy(a.pos[0], item, args{pos: a.pos[1:], kw: a.kw})
		} else {
			err = errorf("map requires a filter's name or attribute=")
		}
		if err != nil {
			return nil, err
		}
	}
	return s.list(items)
}

func (s *state) filterBy(name, v Value, a args) (Value, error) {
	str, err := strArg("map", name, "")
	if err != nil {
		return nil, err
	}
	a.name = str
	return s.applyFilter(str, v, a)
}

// choose is select, reject and their attr variants.
func choose(keep, byAttr bool) filterFunc {
	return func(s *state, v Value, a args) (Value, error) {
		items, err := s.someItems(v)
		if err != nil {
			return nil, err
		}
		var attr Value = unset{}
		if byAttr {
			if len(a.pos) == 0 {
				return nil, errorf("%s needs an attribute", a.name)
			}
			attr, a.pos = a.pos[0], a.pos[1:]
		}
		out := items[:0]
		for _, item := range items {
			ok, err := s.chosen(item, attr, a)
			if err != nil {
				return nil, err
			}
			if ok == keep {
				out = append(out, item)
			}
		}
		return s.list(out)
	}
}

func (s *state) chosen(item, attr Value, a args) (bool, error) {
	if isSet(attr) {
		var err error
		if item, err = s.path(item, attr); err != nil {
			return false, err
		}
	}
	if err := s.spend(1); err != nil {
		return false, err
	}
	if len(a.pos) == 0 {
		return truth(item), nil
	}
	name, err := strArg(a.name, a.pos[0], "")
	if err != nil {
		return false, err
	}
	return s.applyTest(name, item, args{name: name, pos: a.pos[1:], kw: a.kw})
}
