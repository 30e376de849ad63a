// What extends Kubernetes, by its own Go types as @kubernetes-models (MIT) has them. kubernetes.json is made of this.

export type { IPodMonitor as PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
export type { IScaledObject as ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
