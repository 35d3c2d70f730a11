package capi

import (
	"strings"
	"testing"
)

func TestOtherABI(t *testing.T) {
	if e := checkABI(HeaderABIVersion); e != nil {
		t.Error(e)
	}
	e := checkABI(HeaderABIVersion + 1)
	if e == nil || e.Code != Unsupported || !strings.Contains(e.Message, "interface 2") {
		t.Fatalf("%+v", e)
	}
	// Then nothing is called.
	otherABI = e
	defer func() { otherABI = nil }()
	if _, got := ContextNew(ContextOptions{}); got != e {
		t.Errorf("%+v", got)
	}
	if _, got := ConfigNew("/"); got != e {
		t.Errorf("%+v", got)
	}
}
