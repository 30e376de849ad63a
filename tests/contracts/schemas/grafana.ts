// A dashboard, by the types that Grafana itself is made with: @grafana/schema (Apache-2.0), of the version that
// docker-compose.yml starts. grafana.json is made of this.
//
// Those leave open what belongs to a kind of panel, and to a data source. Of the kinds in use it is put in here; of
// `alertlist` nothing is published. What the panels' options leave out Grafana fills in.

import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type * as core from "@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen";

type Some<T> = T extends (infer Each)[] ? Some<Each>[] : T extends object ? { [Key in keyof T]?: Some<T[Key]> } : T;

interface Query {
  refId: string;
  datasource: core.DataSourceRef;
}

interface PrometheusQuery extends Query {
  expr: string;
  legendFormat?: string;
  range?: boolean;
  instant?: boolean;
  exemplar?: boolean;
}

interface JaegerQuery extends Query {
  queryType: "search";
  service: string;
  operation: string;
  limit: number;
}

interface Drawn<Type extends string, Options, Custom> extends Omit<core.Panel, "type" | "options" | "fieldConfig" | "targets"> {
  type: Type;
  options?: Options;
  fieldConfig?: Omit<core.FieldConfigSource, "defaults"> & {
    defaults: Omit<core.FieldConfig, "custom"> & { custom?: Custom };
  };
  targets: (PrometheusQuery | JaegerQuery)[];
}

type AlertList = Omit<core.Panel, "type"> & { type: "alertlist" };

// The schema has only Grafana's own annotations; these are Prometheus'.
interface Annotation extends Omit<core.AnnotationQuery, "target"> {
  target: { refId: string; expr: string; interval?: string };
  titleFormat?: string;
}

export interface Dashboard extends Omit<core.Dashboard, "panels" | "annotations"> {
  annotations: { list: Annotation[] };
  panels: (
    | core.RowPanel
    | AlertList
    | Drawn<"stat", Some<stat.Options>, {}>
    | Drawn<"table", Some<table.Options>, Some<table.FieldConfig>>
    | Drawn<"timeseries", Some<timeseries.Options>, Some<timeseries.FieldConfig>>
  )[];
}
