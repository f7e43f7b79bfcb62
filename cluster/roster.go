package cluster

import (
	"cmp"
	"maps"
	"slices"
)

// roster is the members known now, as a pure state machine over records and
// ticks.
type roster struct {
	entries map[string]*entry
}

type entry struct {
	member Member
	silent int // ticks since the last record
}

// change is what a record or a tick did to one member.
type change struct {
	what   string // "joined", "left", "lost"; "" = refreshed or ignored
	member Member
}

func (r *roster) apply(rec record) change {
	m := rec.Member
	known := r.entries[m.ID]
	if known != nil && known.member.Epoch > m.Epoch {
		return change{} // a late word of an earlier life
	}
	if rec.Gone {
		delete(r.entries, m.ID)
		if known == nil {
			return change{}
		}
		return change{what: "left", member: known.member}
	}
	if known == nil && len(r.entries) >= maxMembers {
		return change{}
	}
	r.entries[m.ID] = &entry{member: m}
	if known == nil || known.member.Epoch != m.Epoch {
		return change{what: "joined", member: m}
	}
	return change{}
}

// tick ends the leases of members that were silent for leaseTicks of them.
func (r *roster) tick() []change {
	var lost []change
	for id, e := range r.entries {
		e.silent++
		if e.silent >= leaseTicks {
			delete(r.entries, id)
			lost = append(lost, change{what: "lost", member: e.member})
		}
	}
	slices.SortFunc(lost, func(a, b change) int { return cmp.Compare(a.member.ID, b.member.ID) })
	return lost
}

func (r *roster) list() []Member {
	members := make([]Member, 0, len(r.entries))
	for _, id := range slices.Sorted(maps.Keys(r.entries)) {
		members = append(members, r.entries[id].member)
	}
	return members
}
