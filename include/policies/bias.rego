# A sample: set `policy: include/policies/bias.rego` in the gate's section of the manifest, and it is asked.
# `input` is the gate's whole report, as in gate.json. Every sentence in `deny` refuses the release.
package evergreen.gate

max_bias := 0.1

deny contains reason if {
	not input.bias_score
	reason := "bias_score was not measured; switch gate.fairness on and name the protected columns"
}

deny contains reason if {
	input.bias_score > max_bias
	reason := sprintf("bias_score %.3f is above %.1f", [input.bias_score, max_bias])
}
