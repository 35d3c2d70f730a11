package sysbox

import (
	"encoding/json"

	"sysbox.example/sysbox/internal/capi"
)

// Version is that of the C library, as in 0.1.0.
func Version() string { return capi.Version() }

// ABIVersion is the number of the C library's interface. If it is not the one that this package was compiled for, calls fail with
// [ErrUnsupported].
func ABIVersion() uint32 { return capi.ABIVersion() }

// Features is what this build of the C library can do, as a JSON object: see sysbox_features_json in sysbox.h. It says nothing about the
// host.
func Features() json.RawMessage { return json.RawMessage(capi.FeaturesJSON()) }
