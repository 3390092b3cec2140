package orca

import (
	"encoding/binary"
	"math"
)

// Numbers of the fields in xds.data.orca.v3.OrcaLoadReport that are read.
const (
	fieldCPU         = 1 // double
	fieldRPS         = 3 // uint64, deprecated
	fieldFractional  = 6 // double
	fieldEPS         = 7 // double
	fieldApplication = 9 // double
)

// Wire types of protobuf.
const (
	wireVarint = 0
	wireI64    = 1
	wireLen    = 2
	wireI32    = 5
)

// proto reads an OrcaLoadReport. What is not needed is stepped over; groups, which
// nobody makes any more, are refused.
func (r *Report) proto(b []byte) bool {
	older := 0.0
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 || tag > math.MaxUint32 {
			return false
		}
		b = b[n:]
		switch tag & 7 {
		case wireVarint:
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return false
			}
			if tag>>3 == fieldRPS {
				older = float64(v)
			}
			b = b[n:]
		case wireI64:
			if len(b) < 8 {
				return false
			}
			v := math.Float64frombits(binary.LittleEndian.Uint64(b))
			switch tag >> 3 {
			case fieldCPU:
				r.CPU = v
			case fieldFractional:
				r.RPS = v
			case fieldEPS:
				r.EPS = v
			case fieldApplication:
				r.Application = v
			}
			b = b[8:]
		case wireLen:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return false
			}
			b = b[n+int(size):]
		case wireI32:
			if len(b) < 4 {
				return false
			}
			b = b[4:]
		default:
			return false
		}
	}
	if r.RPS == 0 {
		r.RPS = older
	}
	return true
}
